"""The main process of a batch prediction job: from the task to shards in the output path.

    find the inputs and cut them into splits    written down once, in the manifest; a new start reads it
    leave out the splits whose shards are there
    hand the others to workers                  a worker that dies is replaced, its split begun anew
    join the errors, tell the counts, remove what was only for the way

Each step may be cut short by a kill and repeated; see `write` for why nothing is lost or doubled.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from enginehouse.batch.objects import Object, Objects
from enginehouse.batch.patterns import Pattern
from enginehouse.batch.progress import Progress, describe_counts
from enginehouse.batch.split import Piece, Split, make_splits
from enginehouse.batch.write import Counts, Output

_MAX_ATTEMPTS = 3
_TICK_S = 0.5
_FORK = multiprocessing.get_context("fork")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
"""All workers together have as many computing threads as there are cores."""
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
        count = min(self._task["workers"], len(todo))
        workers = Workers(prepared_work(task, len(splits), count), splits, count)
        try:
            for message in workers.run(todo):
                progress.take(message)
                if "done" in message:
                    total += Counts(message["predictions"], message["errors"])
                if progress.is_due:
                    print(progress.line(workers.count))
                    self._report(progress.counts, self._task["workers"])
            print(progress.line(workers.count))
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


def prepared_work(task: dict[str, Any], n_splits: int, count: int) -> Callable[[Connection], None]:
    """What each of `count` workers does with its end of a connection (see `worker`). Imports the framework."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    for variable in _THREAD_VARIABLES:
        os.environ.setdefault(variable, threads)
    gc.disable()  # an import leaves no garbage, and looking for it takes a tenth of the time
    # Only now: they read these variables, and a job that has nothing left to do needs no framework.
    from enginehouse.batch.worker import loader, work

    prepared = partial(work, task, n_splits, loader(task["framework"]))
    gc.freeze()  # or the workers' collections would copy what they share
    gc.enable()
    return prepared


class Workers:
    """The worker processes of a job: forks of this one, which has imported the framework for all of them.

    They load the model side by side, as many as there is work for. One that can't be loaded is told once.

    Args:
        work: what each of them does.
        splits: all of the job's.
        count: how many side by side.
    """

    def __init__(self, work: Callable[[Connection], None], splits: list[Split], count: int) -> None:
        self.count = count
        self._work = work
        self._splits = splits
        self._running: list[_Worker] = []
        self._attempts: dict[int, int] = {}

    def run(self, todo: list[int]) -> Iterator[dict[str, Any]]:
        """Have the splits predicted; yields what the workers tell, and {} now and then.

        Raises:
            BatchFailed: a worker can't go on, or dies of the same split again and again.
        """
        queue = deque(todo)
        left = set(todo)
        while left:
            self._start_for(len(queue))
            for worker in self._running:
                if worker.is_free and queue:
                    split = queue.popleft()
                    worker.give(split, self._splits[split])
            ready = wait([worker.connection for worker in self._running], _TICK_S)
            for worker in [each for each in self._running if each.connection in ready]:
                message = worker.message()
                if message is None:
                    self._bury(worker, queue)
                    continue
                if "failed" in message:
                    print(message["trace"], end="", file=sys.stderr)
                    raise BatchFailed(message["failed"])
                left.discard(message.get("done", -1))
                yield message
            yield {}

    def _start_for(self, n_waiting: int) -> None:
        """As many workers as there are splits that nobody has."""
        without_split = sum(worker.is_free or not worker.splits for worker in self._running)
        for _ in range(min(self.count - len(self._running), n_waiting - without_split)):
            self._running.append(_Worker(self._work, [each.connection for each in self._running]))

    def _bury(self, worker: _Worker, queue: deque[int]) -> None:
        self._running.remove(worker)
        how = worker.end()
        if not worker.splits:
            self._count_death(-1, f"A worker {how} before it had a split.")
            return
        at_hand = worker.splits[-1]
        first = self._splits[at_hand][0]
        place = f"{first.uri} from byte {first.start} on"
        self._count_death(at_hand, f"The worker {how} while it predicted {place}.")
        queue.extendleft(reversed(worker.splits))

    def _count_death(self, split: int, text: str) -> None:
        self._attempts[split] = self._attempts.get(split, 0) + 1
        if self._attempts[split] >= _MAX_ATTEMPTS:
            raise BatchFailed(f"{text} That was the {_MAX_ATTEMPTS}. time.")
        print(f"WARNING: {text} Another one begins it anew.", file=sys.stderr)

    def close(self) -> None:
        """End them all."""
        for worker in self._running:
            worker.process.kill()
            worker.end()


class _Worker:
    """A worker process, seen from the coordinator.

    Args:
        work: what it does with its end of a connection.
        others: the ends of other connections, which it inherits but must not hold open.

    Attributes:
        splits: that it has been given, in this order, and not committed yet.
        is_free: it waits for one; the one before may still be on its way into the bucket.
    """

    def __init__(self, work: Callable[[Connection], None], others: list[Connection]) -> None:
        self.connection, theirs = _FORK.Pipe()
        self.process = _FORK.Process(target=_begin, args=(work, theirs, [*others, self.connection]))
        self.process.start()
        theirs.close()
        self.splits: list[int] = []
        self.is_free = False

    def give(self, split: int, pieces: Split) -> None:
        """Hand it a split. One that is just dying shows so in its next message."""
        self.splits.append(split)
        self.is_free = False
        with contextlib.suppress(ConnectionError):
            self.connection.send((split, pieces))

    def message(self) -> dict[str, Any] | None:
        """What it tells next; None when it has ended."""
        try:
            message: dict[str, Any] = self.connection.recv()
        except (EOFError, ConnectionError):
            return None
        if "done" in message:
            self.splits.remove(message["done"])
        self.is_free |= "predicted" in message or "ready" in message
        return message

    def end(self) -> str:
        """Let go of it when it has ended or is about to; how it ended."""
        self.connection.close()
        self.process.join()
        code = self.process.exitcode
        if code and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"


def _begin(work: Callable[[Connection], None], connection: Connection, others: list[Connection]) -> None:
    for other in others:
        other.close()
    work(connection)
