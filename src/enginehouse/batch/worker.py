"""A worker process: loads the model, then predicts the splits that the coordinator names, one at a time.

An order is the number of a split and its pieces. Back come dictionaries:

    {"ready": True}                                              the model is loaded
    {"bytes": N, "predictions": N, "errors": N}                  of the split at hand since the last such message
    {"predicted": SPLIT}                                         it is being committed; the next one may come
    {"done": SPLIT, "predictions": N, "errors": N}               it is committed
    {"failed": "…", "trace": "…"}                                the job can't go on; the process ends

What the model prints goes to stdout and stderr, so to the job's log.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from enginehouse.batch.objects import ObjectError, Objects
from enginehouse.batch.read import DamagedInput, blocks, first_line
from enginehouse.batch.run import Predictor
from enginehouse.batch.split import Piece, Split
from enginehouse.batch.write import Output, Shard
from enginehouse.modelserver import adapters
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.errors import ModelServerError

if TYPE_CHECKING:
    from enginehouse.modelserver.worker.link import Outside

_TELL_EVERY_S = 0.5


def loader(framework: str) -> Callable[[Path], Adapter]:
    """What loads the job's model; imports the framework."""
    return adapters.loader(framework, _outside())


def work(task: dict[str, Any], n_splits: int, load: Callable[[Path], Adapter], coordinator: Connection) -> None:
    """Run until the coordinator closes its end. The only thing that this process does.

    Args:
        task: see `jobs.program`.
        n_splits: how many the job has.
        load: what `loader` gave.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    np.random.seed()  # or all forks of a process draw the same
    teller = Teller(coordinator)
    try:
        _Worker(task, n_splits, load, coordinator, teller).run()
    except Exception as error:
        teller.give_up(error)


def _outside() -> Outside | None:
    """The old runtime that the job is of, if it is (see `entry`)."""
    told = os.environ.get("ENGINEHOUSE_BATCH_OUTSIDE")
    if told is None:
        return None
    from enginehouse.modelserver.worker.link import Outside

    python, paths = json.loads(told)
    return Outside(Path(python), tuple(map(Path, paths)))


class Teller:
    """The way to the coordinator; sums up what is told often. `tell` and `give_up` are for any thread."""

    def __init__(self, coordinator: Connection) -> None:
        self._coordinator = coordinator
        self._telling = threading.Lock()
        self._told_at = 0.0
        self._sums = {"bytes": 0, "predictions": 0, "errors": 0}

    def tell(self, message: dict[str, Any]) -> None:
        with self._telling:
            self._coordinator.send(message)

    def give_up(self, error: Exception) -> NoReturn:
        """End the process; where the job can't go on either, say so."""
        if isinstance(error, (ModelServerError, DamagedInput, ObjectError)):
            trace = "" if isinstance(error, DamagedInput) else "".join(traceback.format_exception(error))
            with contextlib.suppress(ConnectionError):
                self.tell({"failed": str(error), "trace": trace})
        elif not isinstance(error, ConnectionError):  # else the coordinator is gone
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)

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


class Committer:
    """Puts shards into the bucket, one at a time, while the next split is predicted.

    Args:
        objects: for its own thread alone.
    """

    def __init__(self, teller: Teller, objects: Objects) -> None:
        self._teller = teller
        self._objects = objects
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def take(self, split: int, shard: Shard) -> None:
        """Commit it and close it; waits until the one before is there."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._commit, split, shard)

    def _commit(self, split: int, shard: Shard) -> None:
        try:
            with shard:
                shard.commit(self._objects)
            self._teller.tell({"done": split, **asdict(shard.counts)})
        except Exception as error:  # the worker may be waiting for an order that would never come
            self._teller.give_up(error)


class _Worker:
    def __init__(
        self,
        task: dict[str, Any],
        n_splits: int,
        load: Callable[[Path], Adapter],
        coordinator: Connection,
        teller: Teller,
    ) -> None:
        self._task = task
        self._n_splits = n_splits
        self._load = load
        self._coordinator = coordinator
        self._teller = teller
        self._objects = Objects.from_environment()
        self._output = Output.parse(task["outputPath"], task["run"])
        self._headers: dict[str, bytes] = {}

    def run(self) -> None:
        adapter = self._load(Path(self._task["directory"]))
        adapter.self_test()
        self._predictor = Predictor(
            adapter,
            data_format=self._task["dataFormat"],
            output_format=self._task["outputDataFormat"],
            signature_name=self._task["signatureName"],
            batch_rows=self._task["batchSize"],
        )
        gc.freeze()  # the model is not garbage: later collections need not walk it
        self._teller.tell({"ready": True})
        committer = Committer(self._teller, Objects.from_environment())
        for split, pieces in self._orders():
            shard = self._predict(split, pieces)
            committer.take(split, shard)
            self._teller.tell({"predicted": split})

    def _orders(self) -> Iterator[tuple[int, Split]]:
        while True:
            try:
                yield self._coordinator.recv()
            except EOFError:
                return

    def _predict(self, split: int, pieces: Split) -> Shard:
        shard = Shard(self._output, split, self._n_splits)
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
        self._teller.flush()
        return shard

    def _header(self, piece: Piece) -> bytes:
        if self._task["dataFormat"].startswith("TF_RECORD"):
            return b""
        if piece.uri not in self._headers:
            self._headers = {piece.uri: first_line(self._objects, piece)}
        return self._headers[piece.uri]
