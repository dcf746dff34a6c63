"""Processes as the Linux kernel shows them: who descends from whom, and how to end them all.

Standard library only. The runner uses it for its tree, the local backend for what a killed runner left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OOM_SCORE = b"300"  # of -1000 … 1000; a process of user code goes before the engine and its runners

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProcessInfo:
    """One line of the process table.

    Attributes:
        start_ticks: clock ticks between boot and the process's start; with the pid it names a process for good.
        alive: False for a zombie.
    """

    pid: int
    parent_pid: int
    group_id: int
    start_ticks: int
    alive: bool


def process_info(pid: int) -> ProcessInfo | None:
    """What the kernel says of `pid`, None if there is no such process (proc(5), /proc/PID/stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the command may hold blanks and parentheses
    return ProcessInfo(pid, int(fields[1]), int(fields[2]), int(fields[19]), fields[0] not in (b"Z", b"X"))


def all_processes() -> list[ProcessInfo]:
    """The process table."""
    return [info for pid in _pids() if (info := process_info(pid))]


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def descendants(pid: int) -> list[ProcessInfo]:
    """All living processes below `pid`."""
    children: dict[int, list[ProcessInfo]] = {}
    for info in all_processes():
        children.setdefault(info.parent_pid, []).append(info)
    found: list[ProcessInfo] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += [info.pid for info in below]
    return [info for info in found if info.alive]


def processes_with(variable: str, value: str) -> list[int]:
    """Living processes of this user, but for this one, that were started with `variable=value` in the environment."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each; those that are gone or not ours are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_processes_with(variable: str, value: str, *, timeout_s: float) -> bool:
    """SIGKILL what `processes_with` finds until nothing is left. False if something still is after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while pids := processes_with(variable, value):
        if time.monotonic() > deadline:
            return False
        signal_all(pids, signal.SIGKILL)
        time.sleep(0.01)
    return True


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of every descendant whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER), or cease to."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER was refused")


def prepare_user_process() -> None:
    """Between fork and exec: die with the runner, and be the first to go when the host runs out of memory."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, _OOM_SCORE)
        os.close(descriptor)
    except OSError:
        pass  # a host that forbids it runs the job all the same


def out_of_memory_kills() -> int:
    """How often the kernel has killed a process for want of memory since boot; 0 where it doesn't tell."""
    try:
        for line in Path("/proc/vmstat").read_bytes().splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
