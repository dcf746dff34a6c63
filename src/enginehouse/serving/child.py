"""A process that serves one node: its end, its output, and how it is ended. Used by `process` and `container`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import IO

_LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOG_TAIL_BYTES = 16 * 1024
_LOG_TAIL_LINES = 8


def put_aside(log_path: Path) -> Path:
    """Where a log is moved when it has grown too long."""
    return log_path.with_name(log_path.name + ".1")


def open_log(path: Path) -> IO[bytes]:
    """Open for appending; a log that has grown too long is first put aside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.replace(put_aside(path))
    return path.open("ab")


def describe_exit(returncode: int | None) -> str:
    """`was killed by SIGSEGV`, `exited with code 3`."""
    if returncode is None:
        return "closed its connection"
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-returncode).name}"
        return f"was killed by signal {-returncode}"
    return f"exited with code {returncode}"


class Child:
    """A process in a session of its own. Belongs to one event loop.

    Args:
        process: just started.
        log_path: where its output goes.
        log_start_bytes: how long that was before.

    Attributes:
        exited: gets the return code, as in subprocess, when the process has ended.
    """

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path, log_start_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._log_path = log_path
        self._log_start_bytes = log_start_bytes
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id, also after its end."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As in subprocess; None while it runs."""
        return self._process.returncode

    async def wait_exit(self) -> int:
        """Wait for the end; the return code as in subprocess."""
        return await asyncio.shield(self.exited)

    def kill_group(self) -> None:
        """SIGKILL to the process and what it started; nothing when it has ended."""
        if self._process.returncode is None:  # not reaped: the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """A sentence with the end of its output."""
        with self._log_path.open("rb") as log:
            size_bytes = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start_bytes, size_bytes - _LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
        # A crash's trace tells the most at its start, and ends with pages of module names.
        fatal = next((number for number, line in enumerate(lines) if line.startswith("Fatal ")), None)
        words = lines[-_LOG_TAIL_LINES:] if fatal is None else lines[fatal : fatal + _LOG_TAIL_LINES]
        return "Its last words: " + " | ".join(words) if words else "It wrote nothing to its log."

    def _reap(self) -> None:
        returncode = self._process.poll()
        if returncode is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.exited.set_result(returncode)
