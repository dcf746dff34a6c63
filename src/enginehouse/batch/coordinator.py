"""The main process of a batch prediction job: from the task to shards in the output path.

    find the inputs and cut them into splits    written down once, in the manifest; a new start reads it
    leave out the splits whose shards are there
    hand the others to workers                  a worker that dies is replaced, its split begun anew
    join the errors, tell the counts, remove what was only for the way

Each step may be cut short by a kill and repeated; see `write` for why nothing is lost or doubled.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from enginehouse.batch.objects import Object, Objects
from enginehouse.batch.patterns import Pattern
from enginehouse.batch.progress import Progress, describe_counts
from enginehouse.batch.split import Piece, Split, make_splits
from enginehouse.batch.write import Counts, Output

_MAX_ATTEMPTS = 3
_TICK_S = 0.5
_ENTRY = Path(__file__).parent / "entry" / "enginehouse_batch.py"
_REPLICA_DIRECTORY = "ENGINEHOUSE_REPLICA"
_REPORT = "report.json"


class BatchFailed(Exception):
    """The job can't be done; the text is for its owner."""


def main(arguments: list[str]) -> int:
    """Do the task (see `jobs.program`) or raise BatchFailed, whose text the runner shows."""
    task = json.loads(arguments[0])
    Coordinator(task, Objects.from_environment()).run()
    return 0


class Coordinator:
    """One start of a job's program."""

    def __init__(self, task: dict[str, Any], objects: Objects) -> None:
        self._task = task
        self._objects = objects
        self._output = Output.parse(task["outputPath"], task["run"])

    def run(self) -> None:
        """Bring the job to its end.

        Raises:
            BatchFailed, ObjectError: it can't be.
        """
        written = self._objects.get(self._output.bucket, self._output.errors_stats)
        counts = Counts.of(written, self._output.run)
        if counts is None:
            splits = self._splits()
            done = self._done(splits)
            if done:
                print(f"{len(done)} of {len(splits)} shards are there already; going on from there.")
            counts = self._predict(splits, done)
            self._join_errors(splits, counts)
            print("{} in {} shards below {}.".format(describe_counts(counts), len(splits), self._task["outputPath"]))
        self._report(counts, self._task["workers"])
        self._clean_up()
        if counts.errors and not counts.predictions:
            raise BatchFailed(
                f"None of the {counts.errors} instances got a prediction; the reasons are in gs://{self._output.bucket}/{self._output.errors_stats}"
            )

    # --- what there is to do ---

    def _splits(self) -> list[Split]:
        """From the manifest, which is written here at the first start."""
        found = self._objects.get(self._output.bucket, self._output.manifest)
        if found is not None and found.metadata.get("enginehouse-run") == self._output.run:
            value = json.loads(self._objects.content(self._output.bucket, self._output.manifest))
            return [[Piece(**piece) for piece in split] for split in value]
        inputs = self._inputs()
        splits = make_splits(inputs, self._task["dataFormat"], workers=self._task["workers"])
        megabytes = sum(each.size_bytes for each in inputs) / 1e6
        print(f"{len(inputs)} input file(s) of {megabytes:.1f} MB in {len(splits)} split(s).")
        self._warn_of_others(len(splits))
        content = json.dumps([[piece.to_json() for piece in split] for split in splits]).encode()
        metadata = {"enginehouse-run": self._output.run}
        self._objects.upload(self._output.bucket, self._output.manifest, io.BytesIO(content), len(content), metadata)
        return splits

    def _inputs(self) -> list[Object]:
        """Path by path, each path's by name; none twice."""
        found: dict[str, Object] = {}
        for path in self._task["inputPaths"]:
            pattern = Pattern.parse(path)
            matching = [
                each for each in self._objects.list(pattern.bucket, pattern.prefix) if pattern.matches(each.name)
            ]
            if not matching:
                raise BatchFailed(f"No object matches {path} any more.")
            for each in matching:
                found.setdefault(each.uri, each)
        return list(found.values())

    def _warn_of_others(self, n_splits: int) -> None:
        ours = {self._output.results(index, n_splits) for index in range(n_splits)}
        prefix = self._output.prefix + "prediction.results-"
        others = [each.name for each in self._objects.list(self._output.bucket, prefix) if each.name not in ours]
        if others:
            print(
                f"WARNING: {len(others)} shard(s) of an earlier job stay beside the new ones, such as gs://{self._output.bucket}/{others[0]}",
                file=sys.stderr,
            )

    def _done(self, splits: list[Split]) -> dict[int, Counts]:
        """The splits whose shards this job has written, with what is in them."""
        names = {self._output.results(index, len(splits)): index for index in range(len(splits))}
        done = {}
        for each in self._objects.list(self._output.bucket, self._output.prefix + "prediction.results-"):
            counts = Counts.of(each, self._output.run)
            if each.name in names and counts is not None:
                done[names[each.name]] = counts
        return done

    # --- doing it ---

    def _predict(self, splits: list[Split], done: dict[int, Counts]) -> Counts:
        total = sum(done.values(), Counts())
        todo = [index for index in range(len(splits)) if index not in done]
        if not todo:
            return total
        sizes = [sum(piece.end - piece.start for piece in split) for split in splits]
        progress = Progress(
            sum(sizes), sum(sizes[index] for index in done), total, n_splits=len(splits), n_done=len(done)
        )
        task = {**self._task, "directory": self._task["directory"] or self._download_model()}
        workers = Workers(task, splits, min(self._task["workers"], len(todo)))
        try:
            for message in workers.run(todo):
                progress.take(message)
                if "done" in message:
                    total += Counts(message["predictions"], message["errors"])
                if progress.is_due:
                    print(progress.line(workers.count))
                    self._report(progress.counts, self._task["workers"])
        finally:
            workers.close()
        return total

    def _download_model(self) -> str:
        """The files at the task's URI, below the working directory."""
        bucket, _, name = self._task["uri"][len("gs://") :].partition("/")
        prefix = name.rstrip("/") + "/" if name else ""
        directory = Path("model").absolute()
        for each in self._objects.list(bucket, prefix):
            if each.name.endswith("/"):
                continue
            target = directory / each.name[len(prefix) :]
            if directory not in target.resolve().parents:
                raise BatchFailed(f"The model's file {each.uri} would lie outside of its directory.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for piece in self._objects.read(bucket, each.name, each.generation, 0, each.size_bytes):
                    file.write(piece)
        return str(directory)

    # --- the end ---

    def _join_errors(self, splits: list[Split], counts: Counts) -> None:
        """All errors in one object, in the order of the input; its being there is the mark of a finished job."""
        with tempfile.TemporaryFile(dir=".") as file:
            for index in range(len(splits)):
                part = self._objects.get(self._output.bucket, self._output.errors(index)) if counts.errors else None
                if Counts.of(part, self._output.run) is None or part is None:
                    continue
                for piece in self._objects.read(part.bucket, part.name, part.generation, 0, part.size_bytes):
                    file.write(piece)
            metadata = counts.to_metadata(self._output.run)
            self._objects.upload(self._output.bucket, self._output.errors_stats, file, file.tell(), metadata)

    def _clean_up(self) -> None:
        for each in list(self._objects.list(self._output.bucket, self._output.scratch)):
            self._objects.delete(each.bucket, each.name)

    def _report(self, counts: Counts, workers: int) -> None:
        """For the job's predictionOutput."""
        directory = os.environ.get(_REPLICA_DIRECTORY)
        if directory is None:
            return
        value = {"predictionCount": counts.predictions, "errorCount": counts.errors, "workers": workers}
        partial = Path(directory, _REPORT + ".partial")
        partial.write_text(json.dumps(value))
        partial.replace(Path(directory, _REPORT))


class Workers:
    """The worker processes of a job.

    Args:
        task: what each of them gets.
        splits: all of the job's.
        count: how many side by side.
    """

    def __init__(self, task: dict[str, Any], splits: list[Split], count: int) -> None:
        self.count = count
        self._task = task
        self._splits = splits
        self._selector = selectors.DefaultSelector()
        self._running: list[_WorkerProcess] = []
        self._attempts: dict[int, int] = {}

    def run(self, todo: list[int]) -> Any:
        """Have the splits predicted; yields what the workers tell, and {} now and then.

        Raises:
            BatchFailed: a worker can't go on, or dies of the same split again and again.
        """
        queue = deque(todo)
        left = set(todo)
        while left:
            while len(self._running) < min(self.count, len(left)):
                self._start()
            for worker in self._running:
                if worker.is_free and queue:
                    worker.give(queue.popleft(), self._splits)
            for key, _events in self._selector.select(_TICK_S):
                worker = key.data
                for message in worker.messages():
                    if "failed" in message:
                        raise BatchFailed(message["failed"])
                    if "done" in message:
                        left.discard(message["done"])
                    yield message
                if worker.has_ended:
                    self._bury(worker, queue, left)
            yield {}

    def _start(self) -> None:
        worker = _WorkerProcess(self._task, threads=max(1, len(os.sched_getaffinity(0)) // self.count))
        self._running.append(worker)
        self._selector.register(worker.pipe, selectors.EVENT_READ, worker)

    def _bury(self, worker: _WorkerProcess, queue: deque[int], left: set[int]) -> None:
        self._selector.unregister(worker.pipe)
        self._running.remove(worker)
        how = worker.close()
        split = worker.split
        if split is None or split not in left:
            self._count_death(-1, f"A worker {how} before it had a split.")
            return
        first = self._splits[split][0]
        place = f"{first.uri} from byte {first.start} on"
        self._count_death(split, f"The worker {how} while it predicted {place}.")
        queue.appendleft(split)

    def _count_death(self, split: int, text: str) -> None:
        self._attempts[split] = self._attempts.get(split, 0) + 1
        if self._attempts[split] >= _MAX_ATTEMPTS:
            raise BatchFailed(f"{text} That was the {_MAX_ATTEMPTS}. time.")
        print(f"WARNING: {text} Another one begins it anew.", file=sys.stderr)

    def close(self) -> None:
        """End them all."""
        for worker in self._running:
            worker.process.kill()
            worker.close()
        self._selector.close()


class _WorkerProcess:
    def __init__(self, task: dict[str, Any], *, threads: int) -> None:
        ours, theirs = os.pipe()
        environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self.process = subprocess.Popen(
            [sys.executable, str(_ENTRY), "--worker", str(theirs), json.dumps(task)],
            stdin=subprocess.PIPE,
            pass_fds=[theirs],
            env=environment,
        )
        os.close(theirs)
        os.set_blocking(ours, False)
        self.pipe = ours
        self.split: int | None = None
        self.has_ended = False
        self.is_free = False
        self._partial = b""

    def give(self, split: int, splits: list[Split]) -> None:
        """Hand it a split. One that is just dying shows so on its pipe."""
        self.split, self.is_free = split, False
        order = {"split": split, "splits": len(splits), "pieces": [piece.to_json() for piece in splits[split]]}
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def messages(self) -> list[dict[str, Any]]:
        """What it told since the last look."""
        data = os.read(self.pipe, 1 << 16)
        self.has_ended = not data
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for message in found:
            if "done" in message or "ready" in message:
                self.is_free = True
            if "done" in message:
                self.split = None
        return found

    def close(self) -> str:
        """Let go of it when it has ended or is about to; how it ended."""
        os.close(self.pipe)
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        code = self.process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"
