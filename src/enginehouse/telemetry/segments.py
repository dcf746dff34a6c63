"""One writer's log on disk: a file of JSON lines that only grows, read by byte offset.

In come severity and message (from a replica's runner, or the engine for its service lines); out come `LogRecord`s.
`replica` writes, `api` and `cli` read through `telemetry.joblog`.

A line is `{"t": nanoseconds, "s": severity, "m": message, "f": {fields}}`. A kill in the middle of a write leaves a
torn last line: a reader never returns it, and the next writer ends it with a newline, after which readers skip it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from enginehouse.core.clock import Clock, SystemClock

MAX_MESSAGE_CHARS = 256 * 1024
"""A longer message is cut there and says so; Cloud Logging's own limit for an entry is 256 KB."""

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""google.logging.type.LogSeverity, in rising order."""

_READ_BYTES = 128 * 1024
_SEEK_BYTES = 64 * 1024  # read through rather than halved further
_TAIL_BYTES = 8 * 1024 * 1024  # holds the longest line that a writer makes (six bytes for each control character)


@dataclass(frozen=True)
class LogRecord:
    """One log entry.

    Attributes:
        timestamp_ns: nanoseconds since the epoch; strictly growing within a stream.
        insert_id: fixed width; grows within a stream and differs between the streams of a job, so that
            (timestamp_ns, insert_id) orders all records of a job.
        severity: one of `SEVERITIES`.
        message: text without a trailing newline; may hold several lines.
        task_name: `service`, `master-replica-0`, …
        fields: what else is known, such as `levelname`, `created`, `pathname`, `lineno` of a `logging` record.
    """

    timestamp_ns: int
    insert_id: str
    severity: str
    message: str
    task_name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class LogWriter:
    """Appends records to one file. One process writes a file at a time; threads of that process may share a writer.

    Args:
        path: made, with its parents, if it isn't there; continued if it is.
        task_name: who writes; kept for the reader's convenience, not stored with each record.
        clock: gives the time of a record that brings none.
    """

    def __init__(self, path: Path, task_name: str, clock: Clock | None = None) -> None:
        self.path = path
        self.task_name = task_name
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        last, self._torn = _last_record(self._descriptor)
        self._last_ns: int = last.get("t", 0)
        self.last_fields: Mapping[str, Any] = last.get("f") or {}
        """Those of the last record that was there before."""

    def append(
        self,
        severity: str,
        message: str,
        *,
        fields: Mapping[str, Any] | None = None,
        timestamp_ns: int | None = None,
    ) -> None:
        """Write one record with one write call.

        Args:
            timestamp_ns: when it happened; moved to just after the previous record where it isn't later.

        Raises:
            OSError: it could not be written whole (a full disk). The file stays readable and the writer usable.
        """
        self.extend([(severity, message, fields)], times_ns=() if timestamp_ns is None else (timestamp_ns,))

    def extend(
        self,
        records: Iterable[tuple[str, str, Mapping[str, Any] | None]],
        *,
        times_ns: Iterable[int] = (),
    ) -> None:
        """Write many (severity, message, fields) in their order with one write call.

        Args:
            times_ns: when each happened, as in `append`; now, for those that it has no time for.

        Raises:
            OSError: as in `append`; none or some of the records were written.
        """
        with self._lock:
            last_ns, times = self._last_ns, iter(times_ns)
            now_ns = self._clock.time_ns()
            lines: list[str] = []
            for severity, message, fields in records:
                last_ns = max(next(times, now_ns), last_ns + 1)
                lines.append(_encode(last_ns, severity, message, fields))
            if not lines:
                return
            data = ("\n" if self._torn else "") + "".join(lines)
            self._write(data.encode("utf-8", "replace"))
            self._last_ns = last_ns

    def close(self) -> None:
        """Let go of the file; harmless when called twice."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        while written < len(data):  # a signal or the end of the disk cut it short; the latter raises now
            self._torn = True
            written += os.write(self._descriptor, data[written:])
        self._torn = False


class SegmentStream:
    """Reads what a `LogWriter` wrote, also while it writes. Keeps nothing open between calls; safe from any thread.

    Args:
        path: need not exist yet.
        task_name: given to the records.
        name: what a cursor calls this stream; must differ between the streams of a job (a retried replica has the
            same task name in another directory). The task name by default.
    """

    def __init__(self, path: Path, task_name: str, *, name: str | None = None) -> None:
        self.path = path
        self.task_name = task_name
        self.name = name or task_name
        self._tag = hashlib.blake2b(self.name.encode(), digest_size=5).hexdigest()

    def read(self, offset: int, limit: int) -> tuple[list[LogRecord], int]:
        """Up to `limit` whole records from byte `offset` on.

        Returns:
            The records and the offset to go on from. Lines that are no records (torn by a kill) are passed over.
        """
        records: list[LogRecord] = []
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], offset
        with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)) as file:
            file.seek(offset)
            rest = b""
            while len(records) < limit and (chunk := file.read(_READ_BYTES)):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if record := self._decode(line, offset):
                        records.append(record)
                    offset += len(line) + 1
                    if len(records) == limit:
                        break
        return records, offset

    def seek(self, timestamp_ns: int) -> int:
        """An offset from which on all records of `timestamp_ns` and later are read, and few earlier ones."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
            low, high = 0, os.fstat(descriptor).st_size
            while high - low > _SEEK_BYTES:
                middle = (low + high) // 2
                file.seek(middle)
                file.readline()  # the rest of a line
                start = file.tell()
                record = self._decode(file.readline(), start)
                if record is None or start >= high:
                    break  # a torn line, or one that fills what is left: read from `low`
                if record.timestamp_ns < timestamp_ns:
                    low = start
                else:
                    high = middle
        return low

    def _decode(self, line: bytes, offset: int) -> LogRecord | None:
        try:
            value = json.loads(line)
            return LogRecord(
                timestamp_ns=value["t"],
                insert_id=f"{offset:012x}{self._tag}",
                severity=value["s"],
                message=value["m"],
                task_name=self.task_name,
                fields=value.get("f") or {},
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def _encode(timestamp_ns: int, severity: str, message: str, fields: Mapping[str, Any] | None) -> str:
    if len(message) > MAX_MESSAGE_CHARS:
        left_out = len(message) - MAX_MESSAGE_CHARS
        message = f"{message[:MAX_MESSAGE_CHARS]} … [{left_out} more characters were left out]"
    text = f'{{"t":{timestamp_ns},"s":"{severity}","m":{encode_basestring(message)}'
    if fields:
        text += ',"f":' + json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)
    return text + "}\n"


def _last_record(descriptor: int) -> tuple[dict[str, Any], bool]:
    """The last line that is a record (empty if there is none), and whether the last line is torn."""
    size_bytes = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(size_bytes, _TAIL_BYTES), max(0, size_bytes - _TAIL_BYTES))
    for line in reversed(tail.split(b"\n")):
        try:
            value = json.loads(line)
            return {**value, "t": int(value["t"])}, not tail.endswith(b"\n")
        except (ValueError, KeyError, TypeError):
            continue
    return {}, bool(tail) and not tail.endswith(b"\n")
