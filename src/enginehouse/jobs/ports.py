"""Ports for replicas: free, one replica's own, and given out to no other engine of this host meanwhile.

They lie below the range from which the kernel takes the ports of outgoing connections, so none of those gets in the
way between the choice and the moment that user code listens. A lock on a file per port keeps other engines off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from enginehouse.core.errors import Unavailable

_FIRST = 20_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_RANGE_BEGINS = 32_768


class Ports:
    """The ports that this engine has given out; thread-safe.

    Args:
        directory: for the lock files, the same for all engines of the host.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(tempfile.gettempdir()) / "enginehouse-ports"
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()

    def claim(self, count: int) -> tuple[int, ...]:
        """Free ports that stay this engine's until they are released.

        Raises:
            Unavailable: there are not so many.
        """
        end = _end()
        start = random.randrange(_FIRST, end)  # so that engines seldom try the same ones
        claimed: list[int] = []
        with self._lock:
            for port in chain(range(start, end), range(_FIRST, start)):
                if len(claimed) == count:
                    break
                if self._take(port):
                    if _is_free(port):
                        claimed.append(port)
                    else:
                        self._give_back(port)
            if len(claimed) < count:
                for port in claimed:
                    self._give_back(port)
                raise Unavailable(f"There are no {count} free ports from {_FIRST} to {end - 1} on this machine.")
        return tuple(claimed)

    def hold(self, ports: Iterable[int]) -> None:
        """Keep ports that an engine before this one gave out; replicas may be listening there."""
        with self._lock:
            for port in ports:
                self._take(port)

    def release(self, ports: Iterable[int]) -> None:
        """Give ports back."""
        with self._lock:
            for port in ports:
                self._give_back(port)

    def _give_back(self, port: int) -> None:
        descriptor = self._held.pop(port, None)
        if descriptor is not None:
            os.close(descriptor)

    def _take(self, port: int) -> bool:
        """Lock a port's file; False where this or another engine has it."""
        if port in self._held:
            return False
        try:
            descriptor = self._open(self._directory / str(port))
        except PermissionError:  # another user's, who keeps it to himself
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held[port] = descriptor
        return True

    def _open(self, path: Path) -> int:
        """A port's file; every user of the host may open it."""
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                self._directory.mkdir()
                self._directory.chmod(0o1777)
            return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _end() -> int:
    """The first port that the kernel takes by itself."""
    try:
        first = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = _USUAL_RANGE_BEGINS
    return first if first > _FIRST + 1000 else 65_536


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
