"""The local backend: one runner process per replica, in its own session, alive without the engine.

In come a replica directory and a spec, out come the files that `replica.spec` lists, most of them written by the
runner.

The lock `runner.lock` says whether a runner lives. `launch` takes it and hands the open descriptor to the runner,
which so holds it from its first moment on: there is no gap in which a second one could start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from enginehouse.backends.base import Host, Phase, ReplicaStatus
from enginehouse.backends.local.containers import ContainerEngines
from enginehouse.backends.local.host import this_host
from enginehouse.backends.local.warm import WarmPool
from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.files import FileLock, atomic_write_json, is_locked, read_json
from enginehouse.replica import spec as names
from enginehouse.replica.cgroup import group_of
from enginehouse.replica.container import discard
from enginehouse.replica.processes import kill_processes_with, process_info
from enginehouse.replica.spec import MARKER, Outcome, ReplicaSpec, StopRequest

_MAIN = Path(names.__file__).with_name("__main__.py")
_LOCK_ATTEMPTS = 10  # whoever merely looks at the lock holds it for microseconds
_LOCK_EVERY_S = 0.002
_REAP_LIMIT_S = 10.0
_LOG_TAIL_CHARS = 2000


class LocalBackend:
    """See `backends.base.Backend` for the contract.

    Args:
        python: interpreter of the runners, the engine's own by default.
        clock: for the outcomes that are written here.
        containers: runs containers.
        pool: interpreters that wait; without it every replica starts a fresh one.
        ended: called, from any thread, when a runner that was launched here has ended.
    """

    def __init__(
        self,
        *,
        python: Path | None = None,
        clock: Clock | None = None,
        containers: ContainerEngines | None = None,
        pool: WarmPool | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._python = python or Path(sys.executable)
        self._clock = clock or SystemClock()
        self._containers = containers or ContainerEngines()
        self._pool = pool
        self._ended = ended

    def host(self) -> Host:
        """This machine."""
        return this_host()

    def container_engine(self) -> str:
        """Path of podman or docker."""
        return self._containers.find()

    def launch(self, directory: Path, spec: ReplicaSpec) -> None:
        """Start the runner unless there is or was one."""
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        lock = _acquire(directory)
        if lock is None:
            return
        try:
            if self._settle(directory) is not None:
                return
            atomic_write_json(directory / names.SPEC_FILE, spec.to_json())
            command = [str(self._python), "-I", "-S", str(_MAIN)]
            runner = None
            if self._pool is None or not self._pool.launch(directory, spec, command, lock.fileno()):
                runner = self._spawn(directory, [*command, str(directory), str(lock.fileno())], lock)
            name = f"runner-of-{directory.name}"
            threading.Thread(target=self._await, args=(runner, directory), name=name, daemon=True).start()
        finally:
            lock.release()

    def status(self, directory: Path) -> ReplicaStatus:
        """How it is, from the lock and the files."""
        directory = directory.absolute()
        outcome = _read_outcome(directory)
        if outcome is None and not is_locked(directory / names.LOCK_FILE):
            outcome = self._settle_alone(directory)
            if outcome is None and not is_locked(directory / names.LOCK_FILE):
                return ReplicaStatus(Phase.ABSENT)
        if outcome is not None:
            return ReplicaStatus(Phase.ENDED, outcome.started_ns, outcome)
        started_ns = _started_ns(directory)
        return ReplicaStatus(Phase.PREPARING if started_ns is None else Phase.RUNNING, started_ns)

    def stop(self, directory: Path, *, reason: str, grace_s: float) -> None:
        """Leave a request and wake the runner; without a runner the outcome is written here."""
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        if _read_outcome(directory) is not None:
            return
        earlier = StopRequest.read(directory)
        if earlier is not None:
            reason, grace_s = earlier.reason, min(earlier.grace_s, grace_s)
        request = StopRequest(reason, grace_s, self._clock.time_ns())
        atomic_write_json(directory / names.STOP_FILE, request.to_json())
        if is_locked(directory / names.LOCK_FILE):
            _signal_runner(directory)
        else:
            self._settle_alone(directory)

    def reap(self, directory: Path) -> None:
        """Wait for the runner to be gone, then kill what it left."""
        directory = directory.absolute()
        deadline = time.monotonic() + _REAP_LIMIT_S / 2
        while is_locked(directory / names.LOCK_FILE) and time.monotonic() < deadline:
            time.sleep(_LOCK_EVERY_S)
        outcome = _read_outcome(directory)
        # A runner adopts what its processes leave behind, and says that they have exited when none is left.
        if not _kill_all(directory, none_left=outcome is not None and outcome.reason == "exited"):
            raise OSError(f"some processes of the replica in {directory} can't be killed")

    def _spawn(self, directory: Path, command: list[str], lock: FileLock) -> subprocess.Popen[bytes]:
        with (directory / names.RUNNER_LOG_FILE).open("ab") as log:
            # Blocked until the runner listens: a SIGTERM that comes before would end it without an outcome.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            try:
                return subprocess.Popen(
                    command,
                    cwd=directory,
                    env={**os.environ, MARKER: str(directory)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock.fileno()],
                    start_new_session=True,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _await(self, runner: subprocess.Popen[bytes] | None, directory: Path) -> None:
        """Collect the runner's exit status, so that it is no zombie. One that never got to work gets an outcome.

        Args:
            runner: None for one that is not this process's child.
        """
        if runner is not None:
            runner.wait()
        if directory.exists():
            # Waits for whoever has the lock: if nobody launches again, this call alone knows that the runner failed.
            with FileLock(directory / names.LOCK_FILE).held():
                self._settle(directory, failed=True)
        self._ended()

    def _settle_alone(self, directory: Path) -> Outcome | None:
        """`_settle` under the lock; None where somebody else has it."""
        if not directory.exists() or (lock := _acquire(directory)) is None:
            return None
        try:
            return self._settle(directory)
        finally:
            lock.release()

    def _settle(self, directory: Path, *, failed: bool = False) -> Outcome | None:
        """The outcome of a replica without a runner, written now if there is none; None if it may still be launched.

        Args:
            failed: its runner is known to have come to nothing.
        """
        if (outcome := _read_outcome(directory)) is not None:
            return outcome
        request = StopRequest.read(directory)
        started = (directory / names.STARTED_FILE).exists()
        if request is not None and not started:
            outcome = Outcome("stopped", message=request.reason)
        elif started or failed or (directory / names.RUNNER_FILE).exists():
            outcome = Outcome("lost", message=_lost_message(directory), started_ns=_started_ns(directory))
        else:
            return None
        _kill_all(directory)
        value = {**outcome.to_json(), "ended_ns": self._clock.time_ns()}
        atomic_write_json(directory / names.OUTCOME_FILE, value)
        return Outcome.from_json(value)


def _kill_all(directory: Path, *, none_left: bool = False) -> bool:
    """Kill what is left of a replica, whose runner is gone. False if something still is.

    Args:
        none_left: no process is, unless it belongs to a container.
    """
    none_left = not discard(directory) and none_left
    if group := group_of(directory):
        group.remove()
    return none_left or kill_processes_with(MARKER, str(directory), timeout_s=_REAP_LIMIT_S)


def _acquire(directory: Path) -> FileLock | None:
    """The replica's lock, or None if a runner has it."""
    lock = FileLock(directory / names.LOCK_FILE)
    for attempt in range(_LOCK_ATTEMPTS):
        if attempt:
            time.sleep(_LOCK_EVERY_S)
        if lock.acquire(blocking=False):
            return lock
    return None


def _read_outcome(directory: Path) -> Outcome | None:
    value = read_json(directory / names.OUTCOME_FILE)
    return None if value is None else Outcome.from_json(value)


def _started_ns(directory: Path) -> int | None:
    """When user code was begun, if the runner came to write it down."""
    try:
        return int((directory / names.STARTED_FILE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _signal_runner(directory: Path) -> None:
    """SIGTERM to the runner. One that hasn't said yet who it is reads the request at its start."""
    identity = read_json(directory / names.RUNNER_FILE)
    if identity is None:
        return
    try:
        process = os.pidfd_open(identity["pid"])
    except ProcessLookupError:
        return
    try:
        info = process_info(identity["pid"])
        if info is not None and info.start_ticks == identity["create_time"]:
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)


def _lost_message(directory: Path) -> str:
    text = "The replica's runner died without telling how the replica ended."
    try:
        said = (directory / names.RUNNER_LOG_FILE).read_text(errors="replace").strip()
    except OSError:
        said = ""
    return f"{text} It said: {said[-_LOG_TAIL_CHARS:]}" if said else text
