"""The runner: one replica from its spec to its outcome.

Started by a backend as `python -I -S replica/__main__.py DIRECTORY [LOCK_DESCRIPTOR [WARM]]`; reads and writes the
files that `replica.spec` lists. It needs no engine. What a kill at any moment leaves behind tells the next one what
was done.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Literal

from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.files import FileLock, atomic_write_json
from enginehouse.replica import spec as names
from enginehouse.replica.ahead import PLACEHOLDER, await_replica
from enginehouse.replica.container import ENGINE_FAILURES, Container
from enginehouse.replica.environment import EnvironmentFailedError, Prepared, prepare
from enginehouse.replica.limits import hold
from enginehouse.replica.output import Entry
from enginehouse.replica.process import ProcessEnd, UserProcess
from enginehouse.replica.processes import adopt_orphans, descendants, process_info, signal_all
from enginehouse.replica.spec import Outcome, ReplicaSpec, StopRequest
from enginehouse.replica.warm import WarmInterpreter
from enginehouse.telemetry.segments import LogWriter

_RESERVE_BYTES = 64 * 1024
_WRITE_ATTEMPTS = 50
_WRITE_EVERY_S = 0.1
_STOP_POLL_S = 0.5
_TOOLS_POLL_S = 0.05
_TOOLS_LIMIT_S = 1.0


def main(arguments: Sequence[str]) -> int:
    """Run the replica in the directory that `arguments` name. Returns the process's exit status."""
    warm = WarmInterpreter.adopt(arguments[2]) if len(arguments) > 2 else None
    directory, descriptor = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else None
    if arguments[0] == PLACEHOLDER:
        given = await_replica(arguments)
        if given is None:
            if warm is not None:
                warm.discard()
            return 0
        directory, descriptor = given
    lock = FileLock(directory / names.LOCK_FILE)
    try:
        if descriptor is not None:
            lock.adopt(descriptor)
        elif not lock.acquire(blocking=False):
            return 0  # another runner has it
        Runner(directory, SystemClock(), warm).run()
    except OSError as error:
        print(f"The replica in {directory} could not go on: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Runner:
    """One replica. The caller holds its lock.

    Args:
        directory: holds spec.json.
        clock: for the log's and the outcome's times.
        warm: a child that may become the user process.
    """

    def __init__(self, directory: Path, clock: Clock, warm: WarmInterpreter | None = None) -> None:
        self._directory = directory
        self._clock = clock
        self._warm = warm
        self._wakeup = _Wakeup()
        self._started_ns: int | None = None

    def run(self) -> None:
        """Bring the replica to its outcome; returns at once where it has one.

        Raises:
            OSError: the outcome could not be written.
        """
        if (self._directory / names.OUTCOME_FILE).exists():
            return
        if (self._directory / names.STARTED_FILE).exists():
            self._finish(Outcome("lost", message="The runner died after user code was begun; it is not run twice."))
            return
        info = process_info(os.getpid())
        identity = {"pid": os.getpid(), "create_time": info.start_ticks if info else 0}
        atomic_write_json(self._directory / names.RUNNER_FILE, identity)
        self._wakeup.install()
        (self._directory / names.RESERVE_FILE).write_bytes(b"\0" * _RESERVE_BYTES)
        self._spec = ReplicaSpec.from_json(json.loads((self._directory / names.SPEC_FILE).read_bytes()))
        self._container = Container(self._directory, self._spec) if self._spec.container else None
        self._log = _Log(LogWriter(self._directory / names.LOG_FILE, self._spec.task_name, self._clock))
        # What podman leaves behind are the monitors of containers: not to be signalled, but asked for by name.
        adopt_orphans(self._spec.container is None)
        outcome = self._run()
        if self._warm is not None and self._started_ns is None:
            self._warm.discard()
        self._finish(outcome)

    def _run(self) -> Outcome:
        try:
            prepared = self._prepare()
            if isinstance(prepared, StopRequest):
                return Outcome(self._stop_outcome(), message=prepared.reason)
            end = self._run_module(prepared)
            if self._container is not None:
                end = self._container_end(self._container, end)
        except (EnvironmentFailedError, OSError) as error:
            if self._started_ns is not None and self._container is None:
                raise
            self._log.say(str(error), "ERROR")
            return Outcome("environment_failed", message=str(error))
        finally:
            if self._container is not None:
                self._container.remove()
        return Outcome(
            reason=self._stop_outcome() if end.stopped else "exited",
            exit_code=end.exit_code,
            signal=end.signal,
            message=end.stopped.reason if end.stopped else end.message,
            traceback=end.traceback,
            started_ns=self._started_ns,
            out_of_memory=end.out_of_memory,
        )

    def _prepare(self) -> Prepared | StopRequest:
        """Make the environment, unless a stop request comes first."""
        spec = self._spec
        self._log.say("Running task with arguments: " + _task_arguments(spec))
        if spec.container is None:
            self._log.say(f"Running module {spec.module}.")
        for package in spec.packages:
            self._log.say(f"Downloading the package: {package.uri}")
        make = self._container.prepare if self._container else lambda log: prepare(spec, self._directory, log)
        worker = _Preparation(make, self._log, self._wakeup)
        if request := self._stop_request():
            return request
        worker.start()
        while not worker.done:
            self._wakeup.wait(_STOP_POLL_S)
            if request := self._stop_request():
                _kill_tools(worker)
                return request
        return worker.result()

    def _run_module(self, prepared: Prepared) -> ProcessEnd:
        spec = self._spec
        work = self._directory / names.WORK_DIR
        work.mkdir(exist_ok=True)
        if spec.container is not None:
            arguments = prepared.command[prepared.command.index(spec.container.image) :]
            self._log.say("Running the image: " + shlex.join(arguments))
        else:
            python = "python" if (spec.python_version or "").startswith("2.") else "python3"
            self._log.say("Running command: " + shlex.join([python, "-m", spec.module, *spec.arguments]))
        limits = (spec.memory_bytes, spec.cpus) if spec.container is None else (0, 0)  # its engine sees to them
        held = hold(self._directory, self._clock, memory_bytes=limits[0], cpus=limits[1])
        if told := held.tell():
            self._log.say(told)
        process = UserProcess(
            prepared,
            spec.module,
            spec.arguments,
            work,
            write=self._log.write,
            stop_request=self._stop_request,
            grace_s=spec.grace_s,
            wakeup=self._wakeup.descriptor,
            hold=held,
            clock=self._clock,
            warm=self._warm,
        )
        self._mark_started()
        try:
            process.start()
        except OSError as error:
            self._started_ns = None
            held.release()
            raise EnvironmentFailedError(f"The module could not be started: {error}") from error
        what = prepared.what.capitalize()
        end = process.wait(ended=lambda: self._log.say(f"{what} completed; cleaning up."))
        if end.exit_code != 0 and not end.stopped:
            self._log.say(end.message, "ERROR")
        self._log.say("Clean up finished.")
        if end.exit_code == 0 and not end.stopped:
            self._log.say("Task completed successfully.")
        return end

    def _container_end(self, container: Container, end: ProcessEnd) -> ProcessEnd:
        """How a container ended, from how the engine's program did.

        Raises:
            EnvironmentFailedError: nothing in it has run.
        """
        if end.exit_code in ENGINE_FAILURES and container.never_ran():
            raise EnvironmentFailedError(f"The container could not be started: {self._log.last_error or end.message}")
        if end.exit_code and not end.stopped and container.ran_out_of_memory():
            message = f"It may use {self._spec.memory_bytes >> 20} MiB of memory." if self._spec.memory_bytes else ""
            return replace(end, out_of_memory=True, message=message)
        return end

    def _mark_started(self) -> None:
        """From here on user code may have run; must survive a crash of the host."""
        now_ns = self._clock.time_ns()
        descriptor = os.open(self._directory / names.STARTED_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, b"%d\n" % now_ns)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._started_ns = now_ns

    def _stop_request(self) -> StopRequest | None:
        """The request to stop, from the file; a signal alone is the host going down."""
        request = StopRequest.read(self._directory)
        if request is None and self._wakeup.terminated:
            return StopRequest("The runner was asked to end (SIGTERM).", self._spec.grace_s)
        return request

    def _stop_outcome(self) -> Literal["stopped", "lost"]:
        """Whether the replica was stopped by request, or went down with its host."""
        return "stopped" if StopRequest.read(self._directory) else "lost"

    def _finish(self, outcome: Outcome) -> None:
        """Write the outcome. On a full disk the reserve makes room, and it is tried again for some seconds."""
        value = {**outcome.to_json(), "ended_ns": self._clock.time_ns()}
        (self._directory / names.RESERVE_FILE).unlink(missing_ok=True)
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                atomic_write_json(self._directory / names.OUTCOME_FILE, value)
                return
            except OSError as error:
                if attempt == 0:
                    print(f"The outcome {value} could not be written yet: {error}", file=sys.stderr, flush=True)
                elif attempt == _WRITE_ATTEMPTS - 1:
                    raise
                time.sleep(_WRITE_EVERY_S)


class _Preparation(threading.Thread):
    """Makes the environment beside the main thread, which listens for a stop meanwhile."""

    def __init__(self, make: Callable[[Callable[[str], None]], Prepared], log: _Log, wakeup: _Wakeup) -> None:
        super().__init__(daemon=True)
        self._make = make
        self._log = log
        self._wakeup = wakeup
        self._outcome: Prepared | BaseException | None = None
        self.done = False

    def run(self) -> None:
        try:
            self._outcome = self._make(self._log.say)
        except BaseException as error:
            self._outcome = error
        finally:
            self.done = True
            self._wakeup.wake()

    def result(self) -> Prepared:
        """What came of it, once the thread has ended."""
        if isinstance(self._outcome, Prepared):
            return self._outcome
        if isinstance(self._outcome, EnvironmentFailedError):
            raise self._outcome
        raise EnvironmentFailedError(f"The environment could not be made: {self._outcome!r}") from self._outcome


def _kill_tools(worker: _Preparation) -> None:
    """End what the preparation started. Its thread then cleans up, or hangs in a lock that ends with this process."""
    deadline = time.monotonic() + _TOOLS_LIMIT_S
    while time.monotonic() < deadline:
        tools = descendants(os.getpid())
        signal_all((info.pid for info in tools), signal.SIGKILL)
        worker.join(_TOOLS_POLL_S)
        if not tools and worker.done:
            return


class _Log:
    """The replica's log, which a full disk interrupts but doesn't end."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._lost = 0
        self.last_error = ""
        """The last that the user process said on stderr."""

    def say(self, message: str, severity: str = "INFO") -> None:
        """A line of the runner's own."""
        self._append([(severity, message, None)])

    def write(self, entries: Sequence[Entry]) -> None:
        """Write records of the user process."""
        errors = [message for severity, message, _fields in entries if severity == "ERROR"]
        self.last_error = errors[-1] if errors else self.last_error
        if entries:
            self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> None:
        """Write; what the disk doesn't take is counted and told of later."""
        try:
            if self._lost:
                note = f"{self._lost} log records before this one were lost: the disk did not take them."
                self._writer.append("ERROR", note)
                self._lost = 0
            self._writer.extend(entries)
        except OSError as error:
            if not self._lost:
                print(f"The log could not be written: {error}", file=sys.stderr, flush=True)
            self._lost += len(entries)


class _Wakeup:
    """Signals as bytes on a descriptor, so that one wait covers them and everything else."""

    def __init__(self) -> None:
        self.descriptor, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.terminated = False

    def install(self) -> None:
        """Listen. A backend starts the runner with SIGTERM blocked, so that none is lost before this."""
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # a handler ends at exec, where SIG_IGN would stay on in user code
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def wake(self) -> None:
        """End a wait, from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, b"\0")

    def wait(self, timeout_s: float) -> None:
        """Wait for a signal or `wake`."""
        if select.select([self.descriptor], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self.descriptor, 4096)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self.terminated = True


def _task_arguments(spec: ReplicaSpec) -> str:
    """`--cluster={…} --task={…} --job={…}` from TF_CONFIG, as the service's runner showed them."""
    try:
        config = json.loads(spec.environment.get("TF_CONFIG", "{}"))
        return " ".join(
            f"--{part}={json.dumps(config[part])}" for part in ("cluster", "task", "job") if part in config
        )
    except (ValueError, TypeError):
        return shlex.join(spec.arguments)
