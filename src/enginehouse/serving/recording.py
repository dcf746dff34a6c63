"""Request-response logging: a sample of a version's predictions, as rows of a table in a bucket.

In: requests and answers, from the router and `hearing`. Out: Parquet files
`gs://BUCKET/PROJECT/DATASET/TABLE/part-….parquet` with the columns of the original's BigQuery tables. A request costs
its caller one append to a list.

A thread takes the rows over: every second into a file of the table in the spool directory, and a file that is old or
large enough into the bucket. Its object has the file's name, so that a kill at any line doubles no rows and loses
those of the last second at most; what is in the spool is written by the next engine.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from enginehouse.core import ids
from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, NotFound
from enginehouse.storage.base import ObjectStore
from enginehouse.telemetry.parquet import Column, write

_log = logging.getLogger(__name__)

COLUMNS = (
    Column("model", "text"),
    Column("model_version", "text"),
    Column("time", "time"),
    Column("raw_data", "text"),
    Column("raw_prediction", "text", optional=True),
    Column("groundtruth", "text", optional=True),
)
TABLE_NAME = re.compile(r"[a-z][-a-z0-9.:]{0,98}\.[A-Za-z0-9_]{1,1024}\.[A-Za-z0-9_]{1,1024}")
"""project.dataset.table"""
_PASS_S = 1.0
_MAX_WAITING_BYTES = 64 * 1024 * 1024
_FULL_BYTES = 8 * 1024 * 1024


class Row(NamedTuple):
    """What is written of one request."""

    table: str
    model: str
    version: str
    time_us: int
    request: bytes
    answer: bytes


class RequestRecorder:
    """Samples and keeps. All may be called from any thread.

    Args:
        storage: where the bucket is; it is made when there is something to write.
        spool_dir: rows that are not in the bucket yet.
        bucket: for all tables.
        after_s: rows are in the bucket so long after they came at the latest.
        hear: called before rows are written; what waits elsewhere comes by `keep` then.
    """

    def __init__(
        self,
        storage: ObjectStore,
        spool_dir: Path,
        bucket: str,
        clock: Clock,
        *,
        after_s: float,
        hear: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._spool_dir = spool_dir
        self._bucket = bucket
        self._clock = clock
        self._after_s = after_s
        self._hear = hear
        self._waiting: deque[Row] = deque()
        self._waiting_bytes = 0
        self._n_dropped = 0
        self._counting = threading.Lock()
        self._open: dict[str, tuple[Path, float]] = {}
        self._working = threading.Lock()
        self._background = Background("request recorder", self._pass, retry_s=_PASS_S)

    def start(self) -> None:
        """Begin; what an engine before has left in the spool is written first."""
        self._background.start()

    def stop(self) -> None:
        """Write all that there is to the bucket, and end."""
        self._background.stop()
        try:
            self.flush()
        except Exception:
            _log.exception("requests could not be written to the bucket; the next engine does it")

    def record(self, table: str, share: float, model: str, version: str, request: bytes, answer: bytes) -> None:
        """Perhaps keep a request, with a probability of `share`."""
        if random.random() < share:
            self.keep(Row(table, model, version, self._clock.time_ns() // 1000, request, answer))

    def keep(self, row: Row) -> None:
        """Keep a request that was drawn already."""
        size_bytes = len(row.request) + len(row.answer)
        with self._counting:
            if self._waiting_bytes + size_bytes > _MAX_WAITING_BYTES:
                self._n_dropped += 1
                return
            self._waiting_bytes += size_bytes
        self._waiting.append(row)

    def flush(self) -> None:
        """Write all that there is to the bucket now."""
        with self._working:
            self._spool()
            for path in sorted(self._spool_dir.glob("*.jsonl")):
                self._deliver(path)
            self._open.clear()

    def _pass(self) -> float:
        with self._working:
            self._spool()
            now = self._clock.monotonic()
            opened = dict(self._open.values())
            for path in sorted(self._spool_dir.glob("*.jsonl")):
                since = opened.get(path)
                if since is None or now - since >= self._after_s or path.stat().st_size >= _FULL_BYTES:
                    self._deliver(path)
            self._open = {table: each for table, each in self._open.items() if each[0].exists()}
        return _PASS_S

    def _spool(self) -> None:
        """Take the rows that wait into the files of their tables."""
        self._hear()
        lines: dict[str, list[bytes]] = {}
        while self._waiting:
            row = self._waiting.popleft()
            with self._counting:
                self._waiting_bytes -= len(row.request) + len(row.answer)
            values = [row.model, row.version, row.time_us, _text(row.request), _text(row.answer), None]
            lines.setdefault(row.table, []).append(json.dumps(values).encode() + b"\n")
        with self._counting:
            n_dropped, self._n_dropped = self._n_dropped, 0
        if n_dropped:
            _log.warning("%d sampled requests were dropped: they come faster than the disk takes them", n_dropped)
        for table, some in lines.items():
            if table not in self._open:
                self._spool_dir.mkdir(parents=True, exist_ok=True)
                path = self._spool_dir / f"{table}~{self._clock.time_ns():020d}-{ids.new_id(4)}.jsonl"
                self._open[table] = (path, self._clock.monotonic())
            with self._open[table][0].open("ab") as file:
                file.write(b"".join(some))

    def _deliver(self, path: Path) -> None:
        """A file of the spool as an object; then it is gone."""
        rows = [row for line in path.read_bytes().splitlines() if (row := _row(line)) is not None]
        if rows:
            table, _, number = path.stem.rpartition("~")
            self._require_bucket()
            with self._storage.writer(self._bucket, f"{prefix_of(table)}part-{number}.parquet") as writer:
                writer.write(write(COLUMNS, rows))
                writer.commit()
        path.unlink()

    def _require_bucket(self) -> None:
        try:
            self._storage.get_bucket(self._bucket)
        except NotFound:
            try:
                self._storage.create_bucket(self._bucket)
            except AlreadyExists:
                pass


def prefix_of(table: str) -> str:
    """The names of a table's objects begin with it: `project.dataset.table` → `project/dataset/table/`."""
    project, dataset, name = table.rsplit(".", 2)
    return f"{project}/{dataset}/{name}/"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _row(line: bytes) -> list[str | int | None] | None:
    """A line of the spool; None for one that a kill has torn."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, list) and len(row) == len(COLUMNS) else None
