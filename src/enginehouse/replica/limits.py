"""Holds the processes of a replica to an amount of memory and of CPUs, and tells what they used.

By a control group where one may be made; else the runner looks at the memory of all its processes several times a
second, and kills them when they have more than they may. CPUs are limited by a control group alone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from pathlib import Path
from typing import Protocol

from enginehouse.core.clock import Clock
from enginehouse.replica.cgroup import ControlGroup, group_of
from enginehouse.replica.processes import descendants, out_of_memory_kills, signal_all

_PAGE = resource.getpagesize()
_MIB = 1 << 20
_FILL_BYTES_PER_S = 4 << 30  # no process takes memory faster than it can be filled
_LOOK_AFTER_S = (0.1, 1.0)


class Hold(Protocol):
    """What holds one user process and those that it starts. Used by one thread."""

    def enter(self, pid: int = 0) -> None:
        """Put a process without children under the limits; 0 is the caller's own, between fork and exec."""
        ...

    def look(self) -> float | None:
        """See whether the limit is kept, and kill all if it is not.

        Returns:
            Seconds until the next look is due; None if none is needed.
        """
        ...

    def ran_out(self) -> bool:
        """Whether processes were killed for want of memory."""
        ...

    def usage(self) -> str:
        """A sentence on the most memory that all had together, "" if unknown."""
        ...

    def tell(self) -> str:
        """A sentence for the job's log, "" if there is no limit."""
        ...

    def release(self) -> None:
        """After the last process has ended."""
        ...


def hold(directory: Path, clock: Clock, *, memory_bytes: int, cpus: float) -> Hold:
    """The best hold that this host permits.

    Args:
        directory: the replica's.
        memory_bytes, cpus: 0 for no limit.
    """
    if not memory_bytes and not cpus:
        return _Free()
    group = group_of(directory)
    if group is not None:
        try:
            held = group.make(memory_bytes=memory_bytes, cpus=cpus)
        except OSError:
            group.remove()
        else:
            return _Grouped(group, memory_bytes, cpus, held)
    return _Watched(clock, memory_bytes, cpus) if memory_bytes else _Free(cpus)


class _Free:
    """No limit, or none that can be held; the kernel may still kill when the whole host runs out."""

    def __init__(self, cpus: float = 0) -> None:
        self._cpus = cpus
        self._kills_before = out_of_memory_kills()

    def enter(self, pid: int = 0) -> None:
        pass

    def look(self) -> float | None:
        return None

    def ran_out(self) -> bool:
        return out_of_memory_kills() > self._kills_before

    def usage(self) -> str:
        return ""

    def tell(self) -> str:
        return f"The replica is not {_NO_CPUS.format(self._cpus)}" if self._cpus else ""

    def release(self) -> None:
        pass


_NO_CPUS = "held to its {:g} CPUs, since no control group (cgroup v2) may be made here."


class _Grouped:
    """Held by the kernel."""

    def __init__(self, group: ControlGroup, memory_bytes: int, cpus: float, held: list[str]) -> None:
        self._group = group
        self._memory_bytes = memory_bytes
        self._cpus = cpus
        self._held = held

    def enter(self, pid: int = 0) -> None:
        self._group.enter(pid)

    def look(self) -> float | None:
        return None

    def ran_out(self) -> bool:
        return self._group.out_of_memory_kills() > 0

    def usage(self) -> str:
        return _usage(self._group.peak_bytes(), self._memory_bytes)

    def tell(self) -> str:
        amounts = {"memory": f"{self._memory_bytes // _MIB} MiB of memory", "cpus": f"{self._cpus:g} CPUs"}
        return f"The replica is held to {' and '.join(amounts[each] for each in self._held)} by a control group."

    def release(self) -> None:
        self._group.remove()


class _Watched:
    """Looked at by the runner, whose descendants the processes are."""

    def __init__(self, clock: Clock, memory_bytes: int, cpus: float) -> None:
        self._clock = clock
        self._limit = memory_bytes
        self._cpus = cpus
        self._peak = 0
        self._due = 0.0
        self._ran_out = False
        self._kills_before = out_of_memory_kills()

    def enter(self, pid: int = 0) -> None:
        pass

    def look(self) -> float | None:
        now = self._clock.monotonic()
        if now < self._due:
            return self._due - now
        pids = [info.pid for info in descendants(os.getpid())]
        used = sum(map(_resident_bytes, pids))
        if used > self._limit:  # what they share was counted once for each
            used = sum(map(_proportional_bytes, pids))
        self._peak = max(self._peak, used)
        if used > self._limit:
            self._ran_out = True
            signal_all(pids, signal.SIGKILL)
        least, most = _LOOK_AFTER_S
        wait_s = min(most, max(least, (self._limit - used) / _FILL_BYTES_PER_S))
        self._due = now + wait_s
        return wait_s

    def ran_out(self) -> bool:
        return self._ran_out or out_of_memory_kills() > self._kills_before

    def usage(self) -> str:
        return _usage(self._peak, self._limit)

    def tell(self) -> str:
        text = f"The replica is held to {self._limit // _MIB} MiB of memory by being watched"
        if self._cpus:
            return f"{text}, and not {_NO_CPUS.format(self._cpus)}"
        return f"{text}, since no control group (cgroup v2) may be made here."

    def release(self) -> None:
        pass


def _usage(peak_bytes: int, limit_bytes: int) -> str:
    if not peak_bytes:
        return ""
    text = f"Its processes had used up to {peak_bytes // _MIB} MiB of memory"
    return f"{text}, of the {limit_bytes // _MIB} MiB that they may." if limit_bytes else f"{text}."


def _resident_bytes(pid: int) -> int:
    """Memory of a process, all of what it shares with others included; 0 for one that is gone (proc(5), statm)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _proportional_bytes(pid: int) -> int:
    """Memory of a process, its part of what it shares with others; by `statm` where the kernel won't tell."""
    with contextlib.suppress(OSError, ValueError):
        total = 0
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith((b"Pss:", b"SwapPss:")):
                total += int(line.split()[1]) * 1024
        return total
    return _resident_bytes(pid)
