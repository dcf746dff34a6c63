"""Where a trial's metrics are written: event files of a directory, and files of reports; each followed by offset.

In come a directory (of a bucket or of the disk) and the files that `CLOUD_ML_HP_METRIC_FILE` names; out come
`Series`, which grow from poll to poll. Called by `tuning.metrics`. Not for two threads at once.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from enginehouse.core.errors import NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.storage.base import ObjectStore
from enginehouse.telemetry.summaries import read_scalars

_EVENT_FILE_MARK = "tfevents"
"""What TensorFlow, TensorBoard and PyTorch put into the names of their event files."""
_HEAD_BYTES = 1024
_MAX_READ_BYTES = 16 * 2**20
_REPORT_KEYS = frozenset({"checkpoint_path", "global_step", "timestamp", "trial"})
"""What cloudml-hypertune writes beside the metric itself."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric; `time_s` is when it was written, in seconds since the epoch."""

    step: int
    value: float
    time_s: float


class Series:
    """The points of one tag in one place, in the order in which they were written; 24 bytes for each."""

    def __init__(self) -> None:
        self._numbers = array("d")  # step, value, time; steps are whole up to 2**53

    def add(self, step: int, value: float, time_s: float) -> None:
        """Take one more."""
        self._numbers.extend((step, value, time_s))

    def __len__(self) -> int:
        return len(self._numbers) // 3

    def __iter__(self) -> Iterator[Point]:
        numbers = iter(self._numbers)
        return (
            Point(int(step), value, time_s) for step, value, time_s in zip(numbers, numbers, numbers, strict=True)
        )


@dataclass(frozen=True)
class FoundFile:
    """One file of a directory."""

    path: str
    """From the directory, with slashes."""
    version: object
    """Differs whenever the content has changed."""
    size_bytes: int


class MetricDirectory(Protocol):
    """A directory with event files somewhere below it. It need not be there yet, and files may vanish."""

    def event_files(self) -> list[FoundFile]:
        """Those that are there now."""
        ...

    def open(self, path: str) -> BinaryIO:
        """One of them, to read and seek.

        Raises:
            FileNotFoundError, NotFound: it has vanished.
        """
        ...


@dataclass(frozen=True)
class DiskDirectory:
    """A directory of the disk."""

    root: Path

    def event_files(self) -> list[FoundFile]:
        found = []
        for path in sorted(self.root.rglob(f"*{_EVENT_FILE_MARK}*")):
            with suppress(OSError):
                status = path.stat()
                if path.is_file():
                    version = (status.st_ino, status.st_size, status.st_mtime_ns)
                    found.append(FoundFile(path.relative_to(self.root).as_posix(), version, status.st_size))
        return found

    def open(self, path: str) -> BinaryIO:
        return (self.root / path).open("rb")


@dataclass(frozen=True)
class BucketDirectory:
    """A directory of a bucket. TensorFlow writes an object anew at each flush, and longer each time."""

    store: ObjectStore
    uri: ObjectUri

    @property
    def _prefix(self) -> str:
        return self.uri.name.rstrip("/") + "/" if self.uri.name else ""

    def event_files(self) -> list[FoundFile]:
        found, token = [], ""
        while True:
            try:
                page = self.store.list(self.uri.bucket, prefix=self._prefix, page_token=token)
            except NotFound:
                return []
            found += [
                FoundFile(info.name.removeprefix(self._prefix), info.generation, info.size_bytes)
                for info in page.objects
                if _EVENT_FILE_MARK in info.name.rpartition("/")[2]
            ]
            token = page.next_page_token
            if not token:
                return found

    def open(self, path: str) -> BinaryIO:
        return self.store.open_read(self.uri.bucket, self._prefix + path)[1]


@dataclass
class _Followed:
    """How far a file has been read."""

    version: object = None
    offset: int = 0
    head: bytes = b""
    passed_over: int = 0
    stuck: bool = False
    series: dict[str, Series] = field(default_factory=dict)

    @contextmanager
    def reopened(self, file: BinaryIO) -> Iterator[bool]:
        """For reading on in `file`; yields whether it is another one than before, to be read from its start."""
        replaced = file.read(len(self.head)) != self.head
        if replaced:
            self.offset = 0
        yield replaced
        file.seek(0)
        self.head = file.read(min(self.offset, _HEAD_BYTES))


class EventFiles:
    """All event files of a directory.

    A file that grew is read on from the end of its last whole record; one that was replaced by another of its name is
    read anew and what the old one held is forgotten; one that vanished is remembered.
    """

    def __init__(self, directory: MetricDirectory) -> None:
        self._directory = directory
        self._files: dict[str, _Followed] = {}

    def poll(self) -> bool:
        """Read what is new; whether anything was."""
        news = False
        for found in self._directory.event_files():
            followed = self._files.setdefault(found.path, _Followed())
            if followed.version != found.version:
                with suppress(FileNotFoundError, NotFound):
                    news |= self._read(found, followed)
        return news

    def _read(self, found: FoundFile, followed: _Followed) -> bool:
        with self._directory.open(found.path) as file, followed.reopened(file) as replaced:
            if replaced:
                followed.series.clear()
                followed.passed_over = 0
            reading = read_scalars(file, followed.offset, found.size_bytes)
            followed.version, followed.offset, followed.stuck = found.version, reading.offset, reading.stuck
            followed.passed_over += reading.passed_over
            for scalar in reading.scalars:
                series = followed.series.setdefault(scalar.tag, Series())
                series.add(scalar.step, scalar.value, scalar.time_s)
        return bool(reading.scalars)

    def series(self) -> Iterable[tuple[str, str, Series]]:
        """(directory of the file, tag, points), of all files."""
        for path, followed in self._files.items():
            for tag, series in followed.series.items():
                yield path.rpartition("/")[0], tag, series

    def damaged(self) -> list[str]:
        """The files that can't be read from some place on, or in which records had to be passed over."""
        return [path for path, followed in self._files.items() if followed.stuck or followed.passed_over]


class ReportFile:
    """A file of reports, one JSON object a line: what cloudml-hypertune and `enginehouse.sdk.report` write.

    cloudml-hypertune writes the whole file anew at each report, with the last 100 alone; so a report that was read
    once is kept, and known again by its tag, step and time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._followed = _Followed()
        self._known: set[tuple[str, int, float]] = set()

    def poll(self) -> bool:
        """Read what is new; whether anything was."""
        followed, before = self._followed, len(self._known)
        with suppress(OSError):
            status = self.path.stat()
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            if version == followed.version:
                return False
            with self.path.open("rb") as file, followed.reopened(file):
                file.seek(followed.offset)
                data = file.read(_MAX_READ_BYTES)
                whole = data.rfind(b"\n") + 1
                if not whole and len(data) == _MAX_READ_BYTES:
                    whole = len(data)  # no report has such a line
                followed.offset += whole
                if len(data) < _MAX_READ_BYTES:
                    followed.version = version
                for line in data[:whole].splitlines():
                    self._take(line)
        return len(self._known) > before

    def series(self) -> Iterable[tuple[str, Series]]:
        """(tag, points) of all that was reported."""
        return self._followed.series.items()

    def _take(self, line: bytes) -> None:
        try:
            report = json.loads(line)
            step, time_s = int(report["global_step"]), float(report.get("timestamp", 0))
            values = {tag: float(report[tag]) for tag in report.keys() - _REPORT_KEYS}
            if abs(step) >= 2**63 or not math.isfinite(time_s):
                return
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return
        for tag, value in values.items():
            if (tag, step, time_s) not in self._known:
                self._known.add((tag, step, time_s))
                self._followed.series.setdefault(tag, Series()).add(step, value, time_s)
