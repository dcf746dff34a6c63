"""Content on the local disk: immutable files with random names below `blobs/xx/`.

An object's name never becomes a path, so no name can leave the directory. A blob is complete before the index names
it and is deleted after the index has forgotten it; what a kill leaves between the two is removed by `collect`. Who
makes a blob holds a shared `flock` on it until the index names it, by which `collect` knows it from a leftover; the
kernel lets go when the maker dies. Called by `local` and `uploads`.
"""

from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from enginehouse.core.ids import new_id

_READ_ONLY = 0o444
_BLOBS_IN_A_ROW = 64
"""So many go into one directory before another one is drawn: a file system keeps directories far from each other."""
_NO_LINKS_HERE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


class NewBlob:
    """A blob that is being made, locked against collection.

    As a context manager it is discarded when the block raises and closed at the block's end, by which time the index
    must name it.
    """

    def __init__(self, blob: str, path: Path, descriptor: int) -> None:
        self.blob = blob
        self._path = path
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        write_all(self._descriptor, data)

    def close(self) -> None:
        """Let go of the lock; harmless when done before."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Delete the blob, which the index doesn't name."""
        self._path.unlink(missing_ok=True)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


class BlobDirectory:
    """All blobs of a store. Safe from any thread and from several processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root_text = str(root)
        self._made = itertools.count()
        self._directory = new_id(2)

    def path(self, blob: str) -> Path:
        """Where the blob lies; it need not exist."""
        return self._root / blob[:2] / blob[2:]

    def open(self, blob: str) -> BinaryIO:
        """A blob to be read, without a buffer; FileNotFoundError when it is gone."""
        # Without a Path, which is made in the time that a small blob takes to be read.
        return cast(BinaryIO, io.FileIO(f"{self._root_text}/{blob[:2]}/{blob[2:]}"))

    def create(self, *, mode: int = _READ_ONLY) -> NewBlob:
        """An empty blob. Read-only for everybody but its maker, since it may get hard links elsewhere."""
        return self._make(lambda path: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))

    def link(self, source: str) -> NewBlob:
        """A second blob with the content of `source`.

        Raises:
            FileNotFoundError: `source` is gone.
        """

        def make(path: Path) -> int:
            link_or_copy(self.path(source), path)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

        return self._make(make)

    def _make(self, make: Callable[[Path], int]) -> NewBlob:
        while True:
            blob = self._new_name()
            path = self.path(blob)
            try:
                descriptor = make(path)
            except FileNotFoundError:  # the directory is missing, or the source, which is told now
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = make(path)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if path.exists():
                return NewBlob(blob, path, descriptor)
            os.close(descriptor)  # a collector took it for a leftover in the moment before the lock

    def _new_name(self) -> str:
        if next(self._made) % _BLOBS_IN_A_ROW == 0:
            self._directory = new_id(2)
        return self._directory + new_id(30)

    def seal(self, blob: str) -> None:
        """Make a blob read-only that was created writable."""
        self.path(blob).chmod(_READ_ONLY)

    def unlink(self, blob: str) -> None:
        """Delete a blob that the index names no more; who has it open reads on."""
        self.path(blob).unlink(missing_ok=True)

    def collect(self, named: Callable[[str], set[str]]) -> int:
        """Delete the blobs that a kill left behind.

        Args:
            named: all blobs that the index names now and that begin with a text.

        Returns:
            How many were deleted.
        """
        count = 0
        for directory in self._root.glob("*"):
            found = {directory.name + path.name for path in directory.iterdir()}
            for blob in found - named(directory.name):
                count += _delete_leftover(self.path(blob), blob, named)
        return count


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link, or copy where the file system can't link. `target` must not exist."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE:
            raise
        shutil.copyfile(source, target)


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until nothing is left: a disk that is nearly full takes a part first."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _delete_leftover(path: Path, blob: str, named: Callable[[str], set[str]]) -> bool:
    """Delete `path` unless somebody is making it, or it was named since it was looked at."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if named(blob):
            return False
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
