"""The user process: starts it, carries its output to the log, sees to it that nothing of it is left.

Called by `replica.runner` from its main thread (the kernel ties PDEATHSIG to the thread that forks).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.clock import Clock
from enginehouse.replica.environment import Prepared
from enginehouse.replica.limits import Hold
from enginehouse.replica.output import Entry, Findings, OutputReader
from enginehouse.replica.processes import descendants, prepare_user_process, signal_all
from enginehouse.replica.spec import StopRequest
from enginehouse.replica.warm import WarmInterpreter

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_PIPE_BYTES = 1024 * 1024
_POLL_S = 0.5
_IDLE_S = 0.1
_KILL_EVERY_S = 0.02
_KILL_LIMIT_S = 30.0  # a process that SIGKILL doesn't end hangs in the kernel; nobody can end it
_DRAIN_LIMIT_S = 2.0


@dataclass(frozen=True)
class ProcessEnd:
    """How the main process ended.

    Attributes:
        exit_code, signal: one of them is None.
        stopped: a stop request came before it ended by itself.
        message: one sentence of why, "" after a success.
        traceback: the last one in its output.
        out_of_memory: it was killed since memory ran out.
    """

    exit_code: int | None
    signal: int | None
    stopped: StopRequest | None
    message: str
    traceback: str
    out_of_memory: bool = False


class UserProcess:
    """One run of the user's module.

    Args:
        prepared: interpreter and variables.
        module, arguments: as for `python -m`.
        directory: where it runs.
        write: takes the records of its output.
        stop_request: asked now and then whether the replica is to stop.
        grace_s: between SIGTERM and SIGKILL for what the main process leaves behind.
        wakeup: a descriptor that turns readable when a signal came.
        hold: its limits.
        warm: a child that has imported the framework already; used if nobody can tell the difference.
    """

    def __init__(
        self,
        prepared: Prepared,
        module: str,
        arguments: Sequence[str],
        directory: Path,
        *,
        write: Callable[[Sequence[Entry]], None],
        stop_request: Callable[[], StopRequest | None],
        grace_s: float,
        wakeup: int,
        hold: Hold,
        clock: Clock,
        warm: WarmInterpreter | None = None,
    ) -> None:
        self._prepared = prepared
        self._module = module
        self._arguments = arguments
        self._warm = warm
        self._command = list(prepared.command) or [str(prepared.python), str(BOOTSTRAP), module, *arguments]
        self._what = prepared.what
        self._variables = prepared.variables
        self._directory = directory
        self._write = write
        self._stop_request = stop_request
        self._grace_s = grace_s
        self._hold = hold
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector.register(wakeup, selectors.EVENT_READ)
        self._readers: dict[int, OutputReader] = {}
        self._findings = Findings()
        self._pid = 0
        self._peak_mib = 0
        self._status: int | None = None  # of the main process, once it ended
        self._stopped: StopRequest | None = None
        self._kill_at: float | None = None  # SIGTERM was sent; monotonic time of the SIGKILL
        self._killing_since: float | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: there is no such interpreter, or no more processes.
        """
        try:
            self._pid, *streams = self._start_warm() or self._start_fresh()
        except subprocess.SubprocessError as error:  # what went wrong between fork and exec
            raise OSError(str(error)) from error
        for descriptor, severity in zip(streams, ("INFO", "ERROR"), strict=True):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):  # a smaller pipe does too
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._readers[descriptor] = OutputReader(severity, self._findings, self._clock)
            self._selector.register(descriptor, selectors.EVENT_READ)

    def _start_warm(self) -> tuple[int, int, int] | None:
        """Give the module to the child that waits. Its pid and streams, or None where a fresh one is to start."""
        if self._warm is None:
            return None
        try:
            self._hold.enter(self._warm.pid)
        except OSError:  # it is dead, or a fresh one won't be taken in either
            self._warm.discard()
            return None
        fault = self._warm.begin(
            self._prepared,
            self._module,
            self._arguments,
            self._directory,
            stopping=lambda: self._stop_request() is not None,
        )
        if fault:
            self._write([("INFO", f"A fresh interpreter is started, not the one that waits: {fault}.", None)])
            return None
        return self._warm.pid, self._warm.out, self._warm.err

    def _start_fresh(self) -> tuple[int, int, int]:
        process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=self._enter,
        )
        process.returncode = 0  # waited for here, together with its orphans, not by subprocess
        assert process.stdout and process.stderr
        streams = os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno())
        process.stdout.close()
        process.stderr.close()
        return process.pid, *streams

    def _enter(self) -> None:
        """In the new process, before its program begins."""
        self._hold.enter()
        prepare_user_process()

    def wait(self, *, ended: Callable[[], None]) -> ProcessEnd:
        """Carry output until the main process and all that it left behind are gone.

        Args:
            ended: called once when the main process has ended, before its tree is ended.
        """
        told = False
        while True:
            look_in_s = self._hold.look()
            timeout_s = self._timeout_s()
            self._carry_output(timeout_s if look_in_s is None else min(timeout_s, look_in_s))
            any_child = self._reap()
            if self._status is not None and not told and any_child:
                self._carry_rest()
                ended()
                told = True
            if not any_child or not self._end_tree_if_due():
                break
        self._close()
        if not told:
            ended()
        end = self._end()
        self._hold.release()
        return end

    def _timeout_s(self) -> float:
        if self._killing_since is not None:
            return _KILL_EVERY_S
        if self._kill_at is not None:
            return max(0.0, min(_IDLE_S, self._kill_at - self._clock.monotonic()))
        return _POLL_S

    def _carry_output(self, timeout_s: float) -> bool:
        """Wait for output or a signal, and write what came. Whether anything did."""
        carried = False
        events = self._selector.select(min(timeout_s, _IDLE_S) if self._waiting_entries() else timeout_s)
        for key, _ in events:
            reader = self._readers.get(key.fd)
            if reader is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)  # the wake-up bytes say nothing more
                continue
            carried = True
            try:
                data = os.read(key.fd, _PIPE_BYTES)
            except BlockingIOError:
                continue
            self._write(reader.feed(data) if data else reader.close())
            if not data:
                self._selector.unregister(key.fd)
        if not carried:
            for reader in self._readers.values():
                self._write(reader.idle())
        return carried

    def _waiting_entries(self) -> bool:
        return any(reader.is_waiting for reader in self._readers.values())

    def _reap(self) -> bool:
        """Collect the processes that ended. False once there is no process left below the runner."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._status = status
                self._peak_mib = usage.ru_maxrss // 1024

    def _end_tree_if_due(self) -> bool:
        """SIGTERM to all when the main process ended or a stop was asked for, SIGKILL when the grace is over.

        Returns:
            False when waiting longer is in vain.
        """
        now = self._clock.monotonic()
        request = self._stop_request()
        if request and self._stopped is None and self._status is None:
            self._stopped = request
            self._write([("INFO", f"The replica is being stopped: {request.reason}", None)])
        grace_s = request.grace_s if request else self._grace_s
        if self._kill_at is None and (self._status is not None or request):
            self._terminate()
            self._kill_at = now + grace_s
        elif request and self._kill_at is not None:  # a later request may be less patient
            self._kill_at = min(self._kill_at, now + grace_s)
        if self._kill_at is not None and now >= self._kill_at:
            self._killing_since = self._killing_since or now
            signal_all((info.pid for info in descendants(os.getpid())), signal.SIGKILL)
            if now - self._killing_since > _KILL_LIMIT_S:
                self._write(
                    [("ERROR", "Some processes of the replica hang in the kernel and can't be killed.", None)]
                )
                return False
        return True

    def _terminate(self) -> None:
        """SIGTERM once to each process: to the group in one stroke, then to those that left it."""
        below = descendants(os.getpid())
        if any(info.group_id == self._pid for info in below):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGTERM)
        signal_all((info.pid for info in below if info.group_id != self._pid), signal.SIGTERM)

    def _carry_rest(self) -> None:
        """Carry what is in the pipes."""
        deadline = time.monotonic() + _DRAIN_LIMIT_S  # somebody may go on writing
        while self._carry_output(0) and time.monotonic() < deadline:
            pass

    def _close(self) -> None:
        """Carry the last of the output. The writers are dead, so an empty pipe has no more to give."""
        self._carry_rest()
        for descriptor, reader in self._readers.items():
            self._write(reader.close())
            os.close(descriptor)
        self._selector.close()

    def _end(self) -> ProcessEnd:
        code = -signal.SIGKILL if self._status is None else os.waitstatus_to_exitcode(self._status)
        traceback = self._findings.uncaught or self._findings.traceback
        return ProcessEnd(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stopped=self._stopped,
            message=self._findings.fatal or self._explain(code, traceback),
            traceback=traceback if code else "",
            out_of_memory=self._ran_out_of_memory(code),
        )

    def _ran_out_of_memory(self, code: int) -> bool:
        return code == -signal.SIGKILL and self._stopped is None and self._hold.ran_out()

    def _explain(self, code: int, traceback: str) -> str:
        if code == 0:
            return ""
        if code > 0:
            text = f"The {self._what} ended with exit status {code}."
            return f"{text} {exception_line(traceback)}" if traceback else text
        if code == -signal.SIGKILL and self._stopped is None:
            if self._ran_out_of_memory(code):
                return self._hold.usage() or f"Its main process had held up to {self._peak_mib} MiB of memory."
            return f"The {self._what} was killed (SIGKILL), which is what a host does when memory runs out."
        return f"The {self._what} was ended by signal {-code} ({signal_name(-code)})."


def exception_line(traceback: str) -> str:
    """The line of a traceback that names the exception: the first below the last frame that is not indented."""
    lines = traceback.splitlines()
    frames = [index for index, line in enumerate(lines) if line.startswith("  File ")]
    below = lines[frames[-1] :] if frames else lines
    return next((line for line in below if line[:1] not in (" ", "\t", "")), lines[-1] if lines else "")


def signal_name(number: int) -> str:
    """`SIGTERM` for 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
