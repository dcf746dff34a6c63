"""Small file habits that survive a kill at any line: atomic writes and exclusive locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def atomic_write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` so that a reader sees the old file or the whole new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """`atomic_write` of compact JSON."""
    atomic_write(path, json.dumps(value, separators=(",", ":")).encode(), mode=mode)


def read_json(path: Path) -> Any | None:
    """The JSON in `path`, or None where there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


class FileLock:
    """An advisory `flock` on a file; the kernel lets go when the holder dies, however it dies.

    The descriptor is not inherited by children. One instance belongs to one thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock; False when `blocking` is false and somebody else holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def adopt(self, descriptor: int) -> None:
        """Go on holding a lock that this process inherited with an open `descriptor`, and keep it from children."""
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor that holds the lock. A child that inherits it holds the lock too, from its first moment on.

        Raises:
            ValueError: the lock is not held.
        """
        if self._descriptor is None:
            raise ValueError(f"{self.path} is not locked")
        return self._descriptor

    def release(self) -> None:
        """Let go; harmless when not held. A child that inherited the descriptor goes on holding the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it for the block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()


def is_locked(path: Path) -> bool:
    """Whether some process holds the `FileLock` on `path` now."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
