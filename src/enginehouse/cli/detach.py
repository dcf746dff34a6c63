"""Start an engine in the background and stop one: processes, the engine file and the lock."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from enginehouse.core.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from enginehouse.core.files import is_locked, read_json
from enginehouse.core.settings import Settings
from enginehouse.sdk.client import connect
from enginehouse.sdk.locate import EngineFile, no_engine, running_engine

START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 5.0
_POLL_S = 0.05
_TAIL_LINES = 20


def start_detached(settings: Settings, arguments: Sequence[str], *, timeout_s: float = START_TIMEOUT_S) -> EngineFile:
    """Start `mle ARGUMENTS` in a session of its own and wait until it answers.

    Args:
        settings: those that the engine will have.
        arguments: of `mle`; every path in them absolute, since the engine runs in the data directory.

    Raises:
        FailedPrecondition: an engine runs there already, or the new one ended; with the end of its log.
        DeadlineExceeded: it does not answer in time; it is stopped then.
    """
    if (running := running_engine(settings)) is not None:
        raise FailedPrecondition(
            f"An engine is running on {settings.data_dir} already (pid {running.pid}, {running.url})."
        )
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with settings.log_path.open("ab") as log:
        log_start = log.tell()
        process = subprocess.Popen(
            # -P: a file in the data directory must not pass for a module.
            [sys.executable, "-P", "-m", "enginehouse.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=settings.data_dir,
            start_new_session=True,
        )
    try:
        return _wait_until_up(settings, process, log_start, timeout_s)
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an engine that is not wanted any more; it may be killed at any moment without loss."""
    process.terminate()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_up(
    settings: Settings, process: subprocess.Popen[bytes], log_start: int, timeout_s: float
) -> EngineFile:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise FailedPrecondition(
                f"The engine ended with status {code}. Its log {settings.log_path} ends with:\n"
                f"{_tail(settings.log_path, log_start)}"
            )
        told = read_json(settings.engine_file)
        if isinstance(told, dict) and told.get("pid") == process.pid:
            engine = EngineFile(str(told["url"]), process.pid, told.get("grpcAddress"))
            try:
                if connect(engine.url).engine.healthy():
                    return engine
            except Unavailable:
                pass  # it listens before it serves
        time.sleep(_POLL_S)
    raise DeadlineExceeded(
        f"The engine does not answer after {timeout_s:g} s. Its log {settings.log_path} ends with:\n"
        f"{_tail(settings.log_path, log_start)}"
    )


def _tail(path: Path, start: int) -> str:
    with path.open("rb") as log:
        log.seek(start)
        lines = log.read().decode("utf-8", "replace").rstrip().splitlines()
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])


def stop(settings: Settings, *, timeout_s: float) -> EngineFile:
    """Ask the data directory's engine to end, and wait until it has let go of the directory.

    Raises:
        EngineUnreachable: no engine runs there.
        FailedPrecondition: what runs there can't be told for sure.
        DeadlineExceeded: it is still there after `timeout_s`.
    """
    engine = running_engine(settings)
    if engine is None:
        raise no_engine(settings)
    process = _holder(engine.pid, settings.lock_path)
    if process is None:
        raise FailedPrecondition(
            f"{settings.lock_path} is held, but not by process {engine.pid} that {settings.engine_file} names."
        )
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while is_locked(settings.lock_path) or _is_alive(process):
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"The engine (pid {engine.pid}) is still stopping after {timeout_s:g} s.")
        time.sleep(_POLL_S)
    return engine


def _holder(pid: int, lock: Path) -> psutil.Process | None:
    """The process, if it has the lock file open: a pid alone may belong to somebody else by now."""
    try:
        process = psutil.Process(pid)
        return process if any(Path(each.path) == lock.resolve() for each in process.open_files()) else None
    except psutil.Error:
        return None


def _is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that only waits to be collected by its parent does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
