"""Reads users' packages (wheels, sdists) without ever writing outside a directory.

In comes a path that a user named, out come its members by name, all of them plain files below one root. Whatever is
no such thing (`..`, absolute names, links, devices) makes the whole archive unacceptable.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enginehouse.runtimes.errors import PackageError

MAX_UNPACKED_BYTES = 2 * 1024**3

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    data: bytes
    executable: bool = False


def read_archive(path: Path) -> dict[str, Member]:
    """All files of a .whl, .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz by their names with `/`.

    Raises:
        PackageError: it can't be read, is too large or tries to leave its place.
    """
    try:
        if zipfile.is_zipfile(path):
            return dict(_zip_members(path))
        return dict(_tar_members(path))
    except FileNotFoundError:
        raise PackageError(f"The package {path.name} is not there.") from None
    except PackageError:
        raise
    except Exception as error:  # damage makes tarfile, zipfile and the compressions raise nearly anything
        raise PackageError(
            f"The package {path.name} can't be read: {error}. It should be a wheel (.whl) or a source distribution "
            "(.tar.gz) made by setuptools."
        ) from error


def content_hash(members: Mapping[str, Member]) -> str:
    """A hash of names and bytes: the same for archives that differ only in their time stamps or compression."""
    digest = hashlib.sha256()
    for name in sorted(members):
        member = members[name]
        digest.update(f"{name}\0{int(member.executable)}\0{len(member.data)}\0".encode())
        digest.update(member.data)
    return digest.hexdigest()


def write_members(members: Mapping[str, Member], directory: Path) -> None:
    """Write files below `directory`; one that is there is replaced.

    Raises:
        OSError: the disk failed.
    """
    made: set[Path] = set()
    for name, member in members.items():
        target = directory / name
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.write_bytes(member.data)
        if member.executable:
            target.chmod(0o755)


def _zip_members(path: Path) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(path) as archive:
        budget = _Budget(path)
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise PackageError(f"The package {path.name} holds the link {info.filename!r}, which is not allowed.")
            budget.take(info.file_size)
            yield _safe_name(info.filename, path), Member(archive.read(info), bool(mode & 0o100))


def _tar_members(path: Path) -> Iterator[tuple[str, Member]]:
    # Unpacked whole first: only so the compression's checksum is looked at.
    data = _decompress(path)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg():
                kind = "link" if info.islnk() or info.issym() else "device"
                raise PackageError(f"The package {path.name} holds the {kind} {info.name!r}, which is not allowed.")
            file = archive.extractfile(info)
            assert file is not None  # only links and directories have none
            yield _safe_name(info.name, path), Member(file.read(), bool(info.mode & 0o100))
        if data[archive.offset : archive.offset + tarfile.BLOCKSIZE].strip(b"\0"):
            raise tarfile.ReadError("it is damaged after its first files")  # tarfile takes that for the end


def _decompress(path: Path) -> bytes:
    with path.open("rb") as file:
        magic = file.read(6)
    # Which compressions there are depends on how the host's Python was built, so each is asked for only when needed.
    module = next((name for start, name in _COMPRESSIONS.items() if magic.startswith(start)), "io")
    with importlib.import_module(module).open(path, "rb") as stream:
        data: bytes = stream.read(MAX_UNPACKED_BYTES + 1)
    _Budget(path).take(len(data))
    return data


class _Budget:
    """Refuses archives that would fill the memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_UNPACKED_BYTES

    def take(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left < 0:
            raise PackageError(f"The package {self._path.name} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB.")


def _safe_name(name: str, path: Path) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in name:
        raise PackageError(f"The package {path.name} holds {name!r}, which lies outside of it.")
    return str(pure)
