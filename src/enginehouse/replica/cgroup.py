"""Control groups (cgroup v2) for replicas: one each, so that the kernel itself holds a replica to its limits.

A group is made below the nearest one above this process where that is permitted: one that this user may write to and
that hands the memory controller down. A systemd service with `Delegate=yes`, a user's session and a container with
its own hierarchy have such; root has them nearly everywhere.

Standard library only. Source: docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

_PERIOD_US = 100_000
_REMOVE_ATTEMPTS = 100
_REMOVE_EVERY_S = 0.01


class ControlGroup:
    """The group of one replica.

    Args:
        path: its directory in the hierarchy; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def make(self, *, memory_bytes: int, cpus: float) -> list[str]:
        """Create it with its limits, 0 for none.

        Returns:
            Names of what it holds its processes to: "memory", "cpus".

        Raises:
            OSError: the kernel refuses.
        """
        self._path.mkdir(exist_ok=True)
        held = []
        if memory_bytes:
            self._write("memory.max", str(memory_bytes))
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                self._write("memory.swap.max", "0")
            self._write("memory.oom.group", "1")  # a replica without some of its processes is of no use
            held.append("memory")
        if cpus:
            with contextlib.suppress(OSError):  # the controller may not be handed down
                self._write("cpu.max", f"{max(1000, int(cpus * _PERIOD_US))} {_PERIOD_US}")
                held.append("cpus")
        return held

    def enter(self, pid: int = 0) -> None:
        """Put a process in, by default this one; its children begin in it. May be called between fork and exec."""
        descriptor = os.open(self._path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d" % pid)
        finally:
            os.close(descriptor)

    def out_of_memory_kills(self) -> int:
        """How often the kernel has killed in it for want of memory."""
        with contextlib.suppress(OSError):
            for line in (self._path / "memory.events").read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def peak_bytes(self) -> int:
        """The most memory that it has had; 0 where the kernel is too old to tell (before 5.19)."""
        try:
            return int((self._path / "memory.peak").read_text())
        except (OSError, ValueError):
            return 0

    def remove(self) -> None:
        """Kill what is in it and remove it; fine if it is not there."""
        with contextlib.suppress(OSError):  # a kernel before 5.14 has no such file; the runner kills by itself, too
            self._write("cgroup.kill", "1")
        for _ in range(_REMOVE_ATTEMPTS):
            try:
                self._path.rmdir()
            except FileNotFoundError:
                return
            except OSError:  # what was killed is not gone yet
                time.sleep(_REMOVE_EVERY_S)
            else:
                return

    def _write(self, name: str, text: str) -> None:
        descriptor = os.open(self._path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def group_of(directory: Path, parent: Path | None = None) -> ControlGroup | None:
    """The control group of the replica in a directory, whether it exists or not; None where none may be made.

    Args:
        parent: the group to make it in; found if left out.
    """
    parent = parent or find_parent()
    if parent is None:
        return None
    name = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    return ControlGroup(parent / f"enginehouse-{name}")


def find_parent() -> Path | None:
    """The group of this host in which groups with a memory limit may be made, None if there is none."""
    try:
        own = _own_group(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return None
    return usable_parent(*own) if own else None


def usable_parent(own: Path, top: Path) -> Path | None:
    """The nearest group, from `own` up to `top`, that hands the memory controller down and lets this user in.

    A group that could hand it down is made to; the kernel refuses that to one with processes in it.
    """
    for group in (own, *own.parents):
        if _may_use(group) and _hands_down_memory(group):
            return group
        if group == top:
            break
    return None


def _may_use(group: Path) -> bool:
    return os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK)


def _hands_down_memory(group: Path) -> bool:
    switch = group / "cgroup.subtree_control"
    try:
        if "memory" in switch.read_text().split():
            return True
        offered = (group / "cgroup.controllers").read_text().split()
        if "memory" not in offered:
            return False
        switch.write_text(" ".join(f"+{name}" for name in ("memory", "cpu") if name in offered))
    except OSError:
        return False
    return True


def _own_group(membership: str, mounts: str) -> tuple[Path, Path] | None:
    """Directories of this process's group and of the hierarchy's top, from /proc (cgroups(7), proc(5))."""
    path = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if path is not None and after.startswith("cgroup2 "):
            root, mount = fields[3], Path(fields[4])
            if path == root or path.startswith(root.rstrip("/") + "/"):
                return mount / path[len(root.rstrip("/")) :].lstrip("/"), mount
    return None
