"""The logs of versions whose model asks for them: a line for each request, and what the model's code prints.

In: requests from the router and `hearing`, and the plain files that model servers print to. Out: segments
(`telemetry.served`) that the logging API reads. A request costs its caller one append; a thread writes once a second.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.units import format_duration
from enginehouse.serving.child import put_aside
from enginehouse.serving.types import ServedVersion
from enginehouse.telemetry.segments import LogWriter
from enginehouse.telemetry.served import ACCESS, CONSOLE, version_log_path

_log = logging.getLogger(__name__)

_PASS_S = 1.0
_READ_BYTES = 1024 * 1024
_MAX_WAITING = 100_000
"""What comes faster than the disk takes it is dropped."""


class Access(NamedTuple):
    """One request as the access log tells of it."""

    uid: str
    time_ns: int
    method: str
    path: str
    status: int
    request_bytes: int
    response_bytes: int
    latency_s: float


class Served(Protocol):
    """Whatever serves a version."""

    version: ServedVersion


class PredictionLogs:
    """Writes them. All may be called from any thread; `access` and `tell` cost the caller an append.

    Args:
        logs_dir: where the segments are.
        served: the versions that run, or did.
        console: the file that a version's model servers print to, by uid.
        hear: called before lines are written; what waits elsewhere comes by `tell` then.
    """

    def __init__(
        self,
        logs_dir: Path,
        served: Callable[[], Iterable[Served]],
        console: Callable[[str], Path],
        clock: Clock,
        *,
        hear: Callable[[], None] = lambda: None,
    ) -> None:
        self._logs_dir = logs_dir
        self._served = served
        self._console = console
        self._clock = clock
        self._hear = hear
        self._waiting: deque[Access] = deque()
        self._n_dropped = 0
        self._writing = threading.Lock()
        self._writers: dict[tuple[str, str], LogWriter] = {}  # to open one reads the end of its file
        self._taken: dict[str, tuple[int | None, int]] = {}  # file by inode, and how far it was taken over
        self._background = Background("prediction logs", self._pass, retry_s=_PASS_S)

    def start(self) -> None:
        """Begin; what was printed since the last engine ended is taken over first."""
        self._background.start()

    def stop(self) -> None:
        """Write what there is, and end."""
        self._background.stop()
        self.flush()
        for writer in self._writers.values():
            writer.close()

    def access(
        self, uid: str, method: str, path: str, status: int, request_bytes: int, response_bytes: int, latency_s: float
    ) -> None:
        """A request of the version with that uid was answered."""
        now_ns = self._clock.time_ns()
        self.tell(Access(uid, now_ns, method, path, status, request_bytes, response_bytes, latency_s))

    def tell(self, access: Access) -> None:
        """A request was answered."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(access)
        else:
            self._n_dropped += 1

    def flush(self) -> None:
        """Write what there is now."""
        with self._writing:
            self._write_accesses()
            for each in self._served():
                if each.version.logs_console:
                    self._follow(each.version.uid)

    def _pass(self) -> float:
        self.flush()
        return _PASS_S

    def _write_accesses(self) -> None:
        self._hear()
        by_uid: dict[str, list[Access]] = {}
        while self._waiting:
            access = self._waiting.popleft()
            by_uid.setdefault(access.uid, []).append(access)
        if self._n_dropped:
            _log.warning("%d requests were not logged: they come faster than the disk takes them", self._n_dropped)
            self._n_dropped = 0
        for uid, accesses in by_uid.items():
            accesses.sort(key=attrgetter("time_ns"))
            self._writer(uid, ACCESS).extend(map(_record, accesses), times_ns=(each.time_ns for each in accesses))

    def _follow(self, uid: str) -> None:
        """Take over the whole lines that were printed since the last one in the segment."""
        writer = self._writer(uid, CONSOLE)
        if uid not in self._taken:
            self._taken[uid] = writer.last_fields.get("inode"), writer.last_fields.get("end", 0)
        path = self._console(uid)
        files = [(each.stat().st_ino, each) for each in (put_aside(path), path) if each.exists()]
        last, end = self._taken[uid]
        known = [inode for inode, _ in files]
        try:
            for inode, each in files[known.index(last) if last in known else 0 :]:
                with each.open("rb") as file:
                    file.seek(end if inode == last else 0)
                    self._taken[uid] = inode, _take_over(file, inode, writer)
        except OSError:  # some lines may be written: the segment tells which
            self._writers.pop((uid, CONSOLE)).close()
            del self._taken[uid]
            raise

    def _writer(self, uid: str, kind: str) -> LogWriter:
        writer = self._writers.get((uid, kind))
        if writer is None:
            writer = LogWriter(version_log_path(self._logs_dir, uid, kind), kind, self._clock)
            self._writers[uid, kind] = writer
        return writer


def _take_over(file: BinaryIO, inode: int, writer: LogWriter) -> int:
    """Write what follows in whole lines, each with its end; the end of the last one."""
    at = file.tell()
    while lines := [line for line in file.readlines(_READ_BYTES) if line.endswith(b"\n")]:
        records = []
        for line in lines:
            at += len(line)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            records.append(("INFO", text, {"inode": inode, "end": at}))
        writer.extend(records)
    return at


def _record(access: Access) -> tuple[str, str, dict[str, Any]]:
    severity = "ERROR" if access.status >= 500 else "WARNING" if access.status >= 400 else "INFO"
    message = f"{access.method} {access.path} {access.status} {access.latency_s * 1000:.1f} ms"
    return severity, message, {"http": _http(access)}


def _http(access: Access) -> dict[str, Any]:
    """Cloud Logging's HttpRequest."""
    return {
        "requestMethod": access.method,
        "requestUrl": access.path,
        "requestSize": str(access.request_bytes),
        "status": access.status,
        "responseSize": str(access.response_bytes),
        "latency": format_duration(round(access.latency_s, 6)),
    }
