"""One life of a model server process: spawn, wait until it is ready, exchange frames, end it.

`server.VersionServer` owns it. The two sides talk over a socket pair: there is no path that could be left behind or
found by others, and either side's death is the end of the stream for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import orjson

from enginehouse import modelserver
from enginehouse.modelserver.frames import CONTROL_ID, HEADER, PREDICT, FrameReader
from enginehouse.modelserver.journal import Journal
from enginehouse.serving.child import Child, describe_exit, open_log
from enginehouse.serving.lending import Lender
from enginehouse.serving.limits import Limits
from enginehouse.serving.types import Answer, DeployReport, ModelLoadError, ServedVersion

_MAIN = Path(modelserver.__file__).with_name("__main__.py")
_LINGER_S = 1.0
"""How long a dead server's socket may stay open (a child of the model may hold it) before it is closed from here."""
_LARGE_BODY_BYTES = 64 * 1024

_PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
_PASSED_ON_PREFIXES = ("LC_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "TF_", "XLA_", "CUDA_", "NVIDIA_", "MALLOC_")


class ServerGone(Exception):
    """The model server ended before it answered. `returncode` as in subprocess; None when it is not known."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(describe_exit(returncode))
        self.returncode = returncode


class ModelProcess(asyncio.Protocol):
    """A running model server, and the engine's end of its socket.

    All methods belong to the loop that `start` ran on. The process dies with the thread of that loop, whatever ends
    it.
    """

    def __init__(self, child: Child, lender: Lender) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._child.exited.add_done_callback(self._ended)
        self._lender = lender
        self._lends = False
        self._timeout_s = math.inf
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._last_id = CONTROL_ID
        self._control: asyncio.Future[Answer] = self._loop.create_future()
        self.closed = False
        self.heard_at = self._loop.time()
        """Loop time of the last bytes from the server."""

    @classmethod
    async def start(cls, version: ServedVersion, log_path: Path, limits: Limits) -> ModelProcess:
        """Spawn the model server of `version`, its output appended to `log_path`. It is not ready yet.

        Raises:
            ModelLoadError: there is no interpreter to start.
        """
        ours, theirs = socket.socketpair()
        our_channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        journal_fd = Journal.make()
        try:
            with open_log(log_path) as log:
                log_start_bytes = log.tell()
                # Blocking, but for a millisecond; and it must be this thread, with which the child dies.
                process = subprocess.Popen(  # noqa: ASYNC220
                    _command(version, theirs.fileno(), channel.fileno(), journal_fd, limits),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno(), channel.fileno(), journal_fd],
                    cwd=log_path.parent,
                    env=_environment(),
                    start_new_session=True,
                )
            if limits.memory_bytes:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
        except OSError as error:
            ours.close()
            our_channel.close()
            os.close(journal_fd)
            raise ModelLoadError(
                f"Failed to load model: the runtime could not be started: {error} (Error code: 0)"
            ) from error
        finally:
            theirs.close()
            channel.close()
        self = cls(Child(process, log_path, log_start_bytes), Lender(our_channel, journal_fd))
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            await self.kill()
            raise
        return self

    @property
    def lender(self) -> Lender | None:
        """Who lends client connections to this server; None when it takes none."""
        return self._lender if self._lends and not self.closed else None

    @property
    def counters(self) -> list[int]:
        """What the server counted (`modelserver.journal`), also after its end."""
        return self._lender.counters

    @property
    def pid(self) -> int:
        """The process id, also after its end."""
        return self._child.pid

    async def ready(self) -> DeployReport:
        """Wait until the model is loaded and tested.

        Raises:
            ModelLoadError: it was not; the message is the original's.
        """
        try:
            answer = await asyncio.shield(self._control)
        except ServerGone:
            returncode = await self._child.wait_exit()
            raise ModelLoadError(
                "Failed to load model: Unexpected error when loading the model: the model server "
                f"{describe_exit(returncode)}. {self._child.last_words()} (Error code: 0)"
            ) from None
        report = orjson.loads(answer.body)
        if answer.status != 200:
            raise ModelLoadError(report["message"])
        self._lends = bool(report.get("lends"))
        return DeployReport(report["loadS"], report["selfTest"], tuple(report["warnings"]), report["signatures"])

    def send(self, body: bytes, wish: int = PREDICT) -> asyncio.Future[Answer]:
        """Hand over a request body and what is wished for (`frames`).

        The future gets the answer, or ServerGone when the server ends first.

        The future may be cancelled; the answer is then thrown away.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._transport is None or self.closed:
            future.set_exception(ServerGone(self._child.returncode))
            return future
        self._last_id = request_id = self._last_id + 1 if self._last_id < 0xFFFFFFFF else CONTROL_ID + 1
        self._pending[request_id] = future
        header = HEADER.pack(len(body), request_id, wish)
        if len(body) < _LARGE_BODY_BYTES:
            self._transport.write(header + body)
        else:
            self._transport.writelines((header, body))
        return future

    async def kill(self, *, timeout_s: float = math.inf) -> None:
        """End the process and what it started; returns when it is gone. Harmless when it already is.

        Args:
            timeout_s: requests on lent connections that have been there for longer are not tried again.
        """
        self._timeout_s = timeout_s
        self._child.kill_group()
        await self._child.wait_exit()
        if self._transport is not None:
            self._transport.abort()

    async def wait_exit(self) -> int:
        """Wait for the end of the process; its return code as in subprocess."""
        return await self._child.wait_exit()

    def _ended(self, _exited: asyncio.Future[int]) -> None:
        self._lender.server_ended(timeout_s=self._timeout_s)
        # What it said last is still in the socket and is read first.
        if self._transport is not None and not self.closed:
            self._loop.call_later(_LINGER_S, self._transport.abort)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        for request_id, status, payload in self._reader.feed(data):
            future = self._control if request_id == CONTROL_ID else self._pending.pop(request_id, None)
            if future is not None and not future.done():
                future.set_result(Answer(status, payload))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._child.kill_group()
        pending, self._pending = self._pending, {}
        for future in (self._control, *pending.values()):
            if not future.done():
                future.set_exception(ServerGone(self._child.returncode))
        with contextlib.suppress(asyncio.CancelledError):
            self._control.exception()  # looked at: nobody may be waiting for it any more


def _command(version: ServedVersion, socket_fd: int, channel_fd: int, journal_fd: int, limits: Limits) -> list[str]:
    command = [sys.executable if version.in_worker else str(version.python), "-I", str(_MAIN)]
    command += ["--socket-fd", str(socket_fd), "--channel-fd", str(channel_fd), "--journal-fd", str(journal_fd)]
    command += ["--parent-pid", str(os.getpid())]
    command += ["--framework", version.framework, "--directory", str(version.directory)]
    command += [
        "--max-rows",
        str(limits.max_batch_rows),
        "--max-wait-s",
        str(limits.max_wait_s),
        "--started-s",
        repr(time.time()),
    ]
    if version.explanation:
        command += ["--explanation", version.explanation]
    for directory in version.site_dirs:
        command += ["--site-dir", str(directory)]
    if version.in_worker:
        command += ["--outside", str(version.python)]
    return command


def _environment() -> dict[str, str]:
    """What a model may know of the engine's environment: no tokens, no settings of the engine."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
