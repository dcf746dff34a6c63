"""The warm pool: interpreters of recently used runtimes that wait with their framework imported, and runners.

In comes each launch of a replica. Where an interpreter waits that suits it, a runner is forked from it that has the
user process beside it already; else the pool learns what would have suited. Some runners are made ahead, from each
interpreter and without any; where none is left the backend starts one as ever.
A thread keeps the pool: the runtimes used last are held, within bounds of number, memory and idle time.

All that waits belongs to this process and ends with it, however it ends; runners that have a replica go on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import resource
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginehouse.backends.local.ahead import RunnerAhead
from enginehouse.backends.local.zygote import Zygote
from enginehouse.core.background import Background
from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.errors import EngineError, InvalidArgument
from enginehouse.core.settings import Settings
from enginehouse.replica.environment import Interpreter, find_interpreter
from enginehouse.replica.spec import MARKER, RUNNER_LOG_FILE, ReplicaSpec
from enginehouse.runtimes.cache import MARKER_FILE

_log = logging.getLogger(__name__)

_IMPORTING_POLL_S = 0.1
_WAITING_POLL_S = 1.0
_IDLE_POLL_S = 10.0
_RETRY_S = 60.0
_REMEMBERED = 16
_AHEAD = 2
"""Runners that wait for the next launches, of each interpreter that waits and without one; of some MiB each."""
_SETTLE_S = 0.5
"""After a launch the replica has the host to itself for a moment."""
_PATIENCE_S = 60.0
"""How long a host without priorities is given to become idle before an interpreter is started all the same."""
_MIN_AVAILABLE_BYTES = 1 << 30
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[MG]i?B?)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """How much may wait.

    Attributes:
        count: interpreters; 0 turns the pool off.
        memory_bytes: what they may hold together.
        idle_s: seconds after its last use for which one is kept.
    """

    count: int
    memory_bytes: int
    idle_s: float


def limits(settings: Settings) -> Limits:
    """The limits that the settings make.

    Raises:
        InvalidArgument: a setting can't be read.
    """
    found = _MEMORY.fullmatch(settings.warm_pool_memory.strip())
    if found is None:
        raise InvalidArgument(
            f"{settings.warm_pool_memory!r} is no amount of memory; write GiB or MiB, such as 2GiB or 500MiB.",
            field="warm_pool_memory",
        )
    unit = 1 << 20 if found[2].upper().startswith("M") else 1 << 30
    return Limits(settings.warm_pool, int(float(found[1]) * unit), settings.warm_pool_idle_s)


@dataclass
class _Wanted:
    """An interpreter that a launch would have used, whether it waits or not."""

    interpreter: Interpreter
    since: float
    used: float
    zygote: Zygote | None = None
    ahead: list[RunnerAhead] = field(default_factory=list)
    memory_bytes: int = 0
    failures: int = 0
    retry_at: float = 0.0


class WarmPool:
    """See the module. Safe from any thread.

    Args:
        bounds: how much may wait.
        clock: times idleness.
    """

    def __init__(self, bounds: Limits, clock: Clock | None = None) -> None:
        self._limits = bounds
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._wanted: dict[str, _Wanted] = {}  # the last used one is the last
        self._command: tuple[str, ...] = ()
        self._launched = float("-inf")
        self._ahead: list[RunnerAhead] = []  # for replicas of any kind
        self._gone: list[RunnerAhead] = []  # until they are no zombies
        self._stopped = False
        self._background = Background("warm-pool", self._pass, retry_s=_WAITING_POLL_S)

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """End the interpreters that wait."""
        self._background.stop()
        with self._lock:
            self._stopped = True
            _close_all(self._ahead)
            for wanted in self._wanted.values():
                self._close(wanted)

    def launch(self, directory: Path, spec: ReplicaSpec, command: Sequence[str], lock: int) -> bool:
        """Start the runner by fork. False where nothing that suits is ready; nothing was started then.

        Args:
            command: of a runner, without arguments.
            lock: the descriptor that holds the replica's lock.

        Raises:
            OSError: it may have been started; whether it was, the lock tells.
        """
        interpreter = _interpreter_of(spec, directory)
        variables = {**os.environ, MARKER: str(directory)}
        with self._lock:
            if self._stopped:
                return False
            self._command, self._launched = tuple(command), self._clock.monotonic()
            try:
                warm = interpreter is not None and self._launch_warm(interpreter, directory, lock, variables)
                return warm or self._take(self._ahead, directory, lock, variables)
            finally:
                self._background.wake()

    def _launch_warm(
        self, interpreter: Interpreter, directory: Path, lock: int, variables: Mapping[str, str]
    ) -> bool:
        """Start the runner beside a child with the framework. False where none waits."""
        wanted = self._note(interpreter)
        if self._take(wanted.ahead, directory, lock, variables):
            return True
        zygote = wanted.zygote
        if zygote is not None:
            zygote.look()
        if zygote is None or not zygote.is_ready:
            return False
        try:
            zygote.fork(directory, lock, [*self._command, str(directory)], variables, directory / RUNNER_LOG_FILE)
        except OSError:
            self._fail(wanted)
            raise
        return True

    def _take(self, ahead: list[RunnerAhead], directory: Path, lock: int, variables: Mapping[str, str]) -> bool:
        """Give the replica to the first of the runners that takes it."""
        while ahead:
            runner = ahead.pop(0)
            self._gone.append(runner)
            if runner.take(directory, lock, variables):
                return True
        return False

    def describe(self) -> list[dict[str, Any]]:
        """What waits, for `mle status`; the one used last first."""
        with self._lock:
            return [
                {
                    "runtime": wanted.interpreter.environment.runtime_name,
                    "python": wanted.interpreter.environment.python_version,
                    "modules": list(wanted.interpreter.preload),
                    "state": "ready" if zygote.is_ready else "importing",
                    "memoryMib": zygote.memory_bytes >> 20,
                    "replicas": zygote.forks - len(wanted.ahead),
                }
                for wanted in reversed(self._wanted.values())
                if (zygote := wanted.zygote) is not None
            ]

    def _note(self, interpreter: Interpreter) -> _Wanted:
        key, now = _key(interpreter), self._clock.monotonic()
        wanted = self._wanted.pop(key, None) or _Wanted(interpreter, now, now)
        wanted.used = now
        self._wanted[key] = wanted
        while len(self._wanted) > _REMEMBERED:
            self._close(self._wanted.pop(next(iter(self._wanted))))
        return wanted

    def _pass(self) -> float:
        with self._lock:
            held = self._held()
            for wanted in self._wanted.values():
                if wanted.zygote is None:
                    continue
                wanted.zygote.look()
                if wanted.zygote.error:
                    self._fail(wanted)
                elif wanted not in held:
                    self._close(wanted)
                elif wanted.zygote.is_ready:
                    wanted.memory_bytes = wanted.zygote.memory_bytes
            if (pause_s := self._look_ahead(held)) is not None:
                return pause_s
            if any(wanted.zygote is not None and not wanted.zygote.is_ready for wanted in held):
                return _IMPORTING_POLL_S  # one at a time
            missing = [wanted for wanted in held if wanted.zygote is None]
            if not missing:
                return _IDLE_POLL_S
            wanted = missing[0]
            if not self._may_start(wanted):
                return _WAITING_POLL_S
            try:
                wanted.zygote = Zygote(wanted.interpreter)
            except OSError as error:
                _log.warning("no interpreter of runtime %s could be started: %s", _name(wanted), error)
                self._fail(wanted)
            return _IMPORTING_POLL_S

    def _look_ahead(self, held: Sequence[_Wanted]) -> float | None:
        """Start a runner that waits for a launch, where one is due; seconds to the next look, if it is known."""
        self._gone = [runner for runner in self._gone if runner.is_child]
        quiet_s = self._clock.monotonic() - self._launched
        if quiet_s >= self._limits.idle_s:
            self._gone += self._ahead
            _close_all(self._ahead)
            return None
        self._ahead = [runner for runner in self._ahead if runner.is_child]
        for wanted in (None, *held):
            zygote, ahead = (wanted.zygote, wanted.ahead) if wanted else (None, self._ahead)
            if len(ahead) >= _AHEAD or (wanted and (zygote is None or not zygote.is_ready)):
                continue
            if quiet_s < _SETTLE_S:
                return _SETTLE_S - quiet_s
            try:
                ahead.append(RunnerAhead(self._command, zygote))
            except OSError as error:
                if wanted is None:
                    _log.warning("no runner could be started: %s", error)
                    return _WAITING_POLL_S
                self._fail(wanted)
            return 0.0
        return None

    def _held(self) -> list[_Wanted]:
        """What should wait: what was used last, as much as the limits allow."""
        now, memory_bytes = self._clock.monotonic(), 0
        held: list[_Wanted] = []
        for wanted in reversed(self._wanted.values()):
            memory_bytes += wanted.memory_bytes
            if len(held) >= self._limits.count or memory_bytes > self._limits.memory_bytes:
                break
            built = (wanted.interpreter.environment.directory / MARKER_FILE).exists()
            if built and now - wanted.used < self._limits.idle_s and now >= wanted.retry_at:
                held.append(wanted)
        return held

    def _may_start(self, wanted: _Wanted) -> bool:
        if _available_bytes() < _MIN_AVAILABLE_BYTES + wanted.memory_bytes:
            return False
        quiet = os.getloadavg()[0] < len(os.sched_getaffinity(0))
        return quiet or _has_priorities() or self._clock.monotonic() - wanted.since > _PATIENCE_S

    def _fail(self, wanted: _Wanted) -> None:
        if wanted.zygote is not None:
            error = wanted.zygote.error
            _log.warning("the interpreter of runtime %s that waited has ended: %s", _name(wanted), error)
        self._close(wanted)
        wanted.failures += 1
        wanted.retry_at = self._clock.monotonic() + _RETRY_S * 2 ** min(wanted.failures - 1, 6)

    def _close(self, wanted: _Wanted) -> None:
        _close_all(wanted.ahead)
        if wanted.zygote is not None:
            wanted.zygote.close()
            wanted.zygote = None


def _interpreter_of(spec: ReplicaSpec, directory: Path) -> Interpreter | None:
    """What could wait for such a replica; None where nothing can."""
    if spec.container is not None:
        return None
    try:
        interpreter = find_interpreter(spec, directory)
    except (EngineError, ValueError):
        return None  # the runner will tell
    return interpreter if interpreter is not None and interpreter.preload else None


def _close_all(ahead: list[RunnerAhead]) -> None:
    while ahead:
        ahead.pop().close()


def _key(interpreter: Interpreter) -> str:
    """What makes one interpreter as good as another: the same build of a runtime and the same fixed variables."""
    marker = interpreter.environment.directory / MARKER_FILE
    variables = sorted(interpreter.fixed_variables.items())
    parts = [str(marker), marker.stat().st_mtime_ns, interpreter.preload, variables]
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _name(wanted: _Wanted) -> str:
    return wanted.interpreter.environment.runtime_name


def _has_priorities() -> bool:
    """Whether an interpreter can step back while it imports, and come forward again (replica/zygote.py)."""
    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] > 20:
        return True
    return Path("/proc/self/autogroup").exists()


def _available_bytes() -> int:
    """Memory that can be had without swapping (proc(5), /proc/meminfo)."""
    try:
        for line in Path("/proc/meminfo").read_bytes().splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return _MIN_AVAILABLE_BYTES * 1024
