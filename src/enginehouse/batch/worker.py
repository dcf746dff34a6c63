"""A worker process: loads the model, then predicts the splits that the coordinator names on stdin, one at a time.

It tells on a pipe of its own how it goes, a JSON object per line:

    {"ready": true}                                              the model is loaded
    {"bytes": N, "predictions": N, "errors": N}                  of the split at hand since the last such line
    {"done": SPLIT, "predictions": N, "errors": N}               the split is committed
    {"failed": "…"}                                              the job can't go on; the process ends

What the model prints goes to stdout and stderr, so to the job's log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginehouse.batch.objects import ObjectError, Objects
from enginehouse.batch.read import DamagedInput, blocks, first_line
from enginehouse.batch.run import Predictor
from enginehouse.batch.split import Piece
from enginehouse.batch.write import Output, Shard
from enginehouse.modelserver import adapters
from enginehouse.modelserver.errors import ModelServerError

if TYPE_CHECKING:
    from enginehouse.modelserver.worker.link import Outside

_TELL_EVERY_S = 0.5


def main(arguments: list[str]) -> int:
    """Run until stdin ends. The arguments: `--worker DESCRIPTOR TASK`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, task = int(arguments[1]), json.loads(arguments[2])
    with os.fdopen(descriptor, "w") as pipe:
        try:
            _Worker(task, _Teller(pipe)).run()
        except BrokenPipeError:
            return 1  # the coordinator is gone
        except (ModelServerError, DamagedInput, ObjectError) as error:
            if not isinstance(error, DamagedInput):
                traceback.print_exc()
            print(json.dumps({"failed": str(error)}), file=pipe, flush=True)
            return 1
    return 0


def _outside() -> Outside | None:
    """The old runtime that the job is of, if it is (see `entry`)."""
    told = os.environ.get("ENGINEHOUSE_BATCH_OUTSIDE")
    if told is None:
        return None
    from enginehouse.modelserver.worker.link import Outside

    python, paths = json.loads(told)
    return Outside(Path(python), tuple(map(Path, paths)))


class _Teller:
    """The way to the coordinator; sums up what is told often."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._told_at = 0.0
        self._sums = {"bytes": 0, "predictions": 0, "errors": 0}

    def tell(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), file=self._pipe, flush=True)

    def add(self, **more: int) -> None:
        for key, number in more.items():
            self._sums[key] += number
        now = time.monotonic()
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            self.flush()

    def flush(self) -> None:
        self.tell(self._sums)
        self._sums = dict.fromkeys(self._sums, 0)


class _Worker:
    def __init__(self, task: dict[str, Any], teller: _Teller) -> None:
        self._task = task
        self._teller = teller
        self._objects = Objects.from_environment()
        self._output = Output.parse(task["outputPath"], task["run"])
        self._headers: dict[str, bytes] = {}

    def run(self) -> None:
        adapter = adapters.load(self._task["framework"], Path(self._task["directory"]), _outside())
        adapter.self_test()
        self._predictor = Predictor(
            adapter,
            data_format=self._task["dataFormat"],
            output_format=self._task["outputDataFormat"],
            signature_name=self._task["signatureName"],
            batch_rows=self._task["batchSize"],
        )
        self._teller.tell({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            self._predict(order["split"], [Piece(**piece) for piece in order["pieces"]], order["splits"])

    def _predict(self, split: int, pieces: list[Piece], n_splits: int) -> None:
        with Shard(self._output, split, n_splits) as shard:
            for piece in pieces:
                header = self._header(piece)
                position = piece.start
                for block in blocks(self._objects, piece, self._task["dataFormat"]):
                    result = self._predictor.predict(block, header)
                    shard.add(result)
                    end = min(piece.end, block.offset + len(block.data) + sum(map(len, block.records)))
                    self._teller.add(
                        bytes=max(0, end - position), predictions=result.n_predictions, errors=len(result.errors)
                    )
                    position = max(position, end)
                self._teller.add(bytes=piece.end - position)
            shard.commit(self._objects)
            self._teller.flush()
            counts = shard.counts
        self._teller.tell({"done": split, "predictions": counts.predictions, "errors": counts.errors})

    def _header(self, piece: Piece) -> bytes:
        if self._task["dataFormat"].startswith("TF_RECORD"):
            return b""
        if piece.uri not in self._headers:
            self._headers = {piece.uri: first_line(self._objects, piece)}
        return self._headers[piece.uri]
