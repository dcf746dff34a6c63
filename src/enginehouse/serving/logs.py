"""The logs of versions whose model asks for them: a line for each request, and what the model's code prints.

In: requests from the router, and the plain files that model servers print to. Out: segments (`telemetry.served`) that
the logging API reads. A request costs its caller one append to a list; a thread writes once a second.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.units import format_duration
from enginehouse.serving.child import put_aside
from enginehouse.serving.types import ServedVersion
from enginehouse.telemetry.segments import LogWriter
from enginehouse.telemetry.served import ACCESS, CONSOLE, version_log_path

_PASS_S = 1.0
_READ_BYTES = 1024 * 1024
_MAX_WAITING = 100_000
"""What comes faster than the disk takes it is lost, the oldest first."""


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
    """Writes them. `access` is called on the event loop, all else from any thread.

    Args:
        logs_dir: where the segments are.
        served: the versions that run, or did.
        console: the file that a version's model servers print to, by uid.
    """

    def __init__(
        self, logs_dir: Path, served: Callable[[], Iterable[Served]], console: Callable[[str], Path], clock: Clock
    ) -> None:
        self._logs_dir = logs_dir
        self._served = served
        self._console = console
        self._clock = clock
        self._waiting: deque[Access] = deque(maxlen=_MAX_WAITING)
        self._writing = threading.Lock()
        self._background = Background("prediction logs", self._pass, retry_s=_PASS_S)

    def start(self) -> None:
        """Begin; what was printed since the last engine ended is taken over first."""
        self._background.start()

    def stop(self) -> None:
        """Write what there is, and end."""
        self._background.stop()
        self.flush()

    def access(
        self, uid: str, method: str, path: str, status: int, request_bytes: int, response_bytes: int, latency_s: float
    ) -> None:
        """A request of the version with that uid was answered."""
        now_ns = self._clock.time_ns()
        self._waiting.append(Access(uid, now_ns, method, path, status, request_bytes, response_bytes, latency_s))

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
        by_uid: dict[str, list[Access]] = {}
        while self._waiting:
            access = self._waiting.popleft()
            by_uid.setdefault(access.uid, []).append(access)
        for uid, accesses in by_uid.items():
            with closing(LogWriter(version_log_path(self._logs_dir, uid, ACCESS), ACCESS, self._clock)) as writer:
                for each in accesses:
                    severity = "ERROR" if each.status >= 500 else "WARNING" if each.status >= 400 else "INFO"
                    message = f"{each.method} {each.path} {each.status} {each.latency_s * 1000:.1f} ms"
                    writer.append(severity, message, fields={"http": _http(each)}, timestamp_ns=each.time_ns)

    def _follow(self, uid: str) -> None:
        """Take over the whole lines that were printed since the last one in the segment."""
        path = self._console(uid)
        with closing(LogWriter(version_log_path(self._logs_dir, uid, CONSOLE), CONSOLE, self._clock)) as writer:
            inode, at = writer.last_fields.get("inode"), writer.last_fields.get("end", 0)
            files = [each for each in (put_aside(path), path) if each.exists()]
            inodes = [each.stat().st_ino for each in files]
            first = inodes.index(inode) if inode in inodes else 0
            for each, each_inode in list(zip(files, inodes, strict=True))[first:]:
                with each.open("rb") as file:
                    file.seek(at if each_inode == inode else 0)
                    _take_over(file, each_inode, writer)


def _take_over(file: BinaryIO, inode: int, writer: LogWriter) -> None:
    at = file.tell()
    while lines := [line for line in file.readlines(_READ_BYTES) if line.endswith(b"\n")]:
        records = []
        for line in lines:
            at += len(line)
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            records.append(("INFO", text, {"inode": inode, "end": at}))
        writer.extend(records)


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
