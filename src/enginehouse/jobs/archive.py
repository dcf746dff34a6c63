"""What a package archive holds, read without unpacking or running anything.

In: the bytes of an sdist (.tar.gz, .tgz, .tar, .zip) or a wheel (.whl). Out: the modules in it and whether it asks
for others. Called by `validate` before a job is queued.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

from enginehouse.runtimes.packages import module_names

_MAX_MEMBERS = 100_000
_MAX_UNPACKED_BYTES = 2 * 1024**3  # as much as runtimes/archives.py takes


class UnreadableArchive(ValueError):
    """The bytes are no archive of a kind that pip installs, or a damaged one."""


@dataclass(frozen=True)
class ArchiveContents:
    """Modules by their dotted names (`trainer.task`), and whether the archive declares dependencies."""

    modules: frozenset[str]
    has_requirements: bool

    @property
    def top_level(self) -> frozenset[str]:
        return frozenset(module.partition(".")[0] for module in self.modules)

    def can_run(self, module: str) -> bool:
        """Whether `python -m module` finds something to run here."""
        return module in self.modules and (f"{module}.__main__" in self.modules or module not in self._packages())

    def _packages(self) -> set[str]:
        return {m.rpartition(".")[0] for m in self.modules if "." in m}


def read_contents(file: IO[bytes], filename: str) -> ArchiveContents:
    """List the modules of an archive.

    Raises:
        UnreadableArchive: with the reason, in words for the user.
    """
    name = filename.lower()
    try:
        if name.endswith((".whl", ".zip")):
            with zipfile.ZipFile(file) as archive:
                _check_size(sum(member.file_size for member in archive.infolist()))
                return _contents(archive.namelist(), is_wheel=name.endswith(".whl"), read=_zip_reader(archive))
        if name.endswith((".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")):
            with tarfile.open(fileobj=file) as tar:
                members = _tar_members(tar)
                return _contents(members, is_wheel=False, read=lambda member: _read_tar(tar, member))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, UnicodeDecodeError) as error:
        raise UnreadableArchive(f"it is damaged or not an archive: {error}") from None
    raise UnreadableArchive("a package is an sdist (.tar.gz, .zip) or a wheel (.whl)")


def _tar_members(tar: tarfile.TarFile) -> list[str]:
    members, size_bytes = [], 0
    for member in tar:
        members.append(member.name)
        size_bytes += member.size
        _check_size(size_bytes)  # before the member is read over
        if len(members) > _MAX_MEMBERS:
            raise UnreadableArchive(f"it holds more than {_MAX_MEMBERS} files")
    return members


def _check_size(size_bytes: int) -> None:
    if size_bytes > _MAX_UNPACKED_BYTES:
        raise UnreadableArchive(f"it unpacks to more than {_MAX_UNPACKED_BYTES >> 30} GiB")


def _read_tar(tar: tarfile.TarFile, member: str) -> str:
    file = tar.extractfile(member)
    return file.read(1 << 20).decode("utf-8", "replace") if file else ""


def _zip_reader(archive: zipfile.ZipFile) -> Callable[[str], str]:
    def read(member: str) -> str:
        with archive.open(member) as file:
            return file.read(1 << 20).decode("utf-8", "replace")

    return read


def _contents(members: Iterable[str], *, is_wheel: bool, read: Callable[[str], str]) -> ArchiveContents:
    files: list[str] = []
    has_requirements = False
    for member in members:
        name = member.strip("/").rpartition("/")[2]
        if name == "requires.txt":
            has_requirements = has_requirements or bool(read(member).strip())
        elif name in ("METADATA", "PKG-INFO"):
            has_requirements = has_requirements or "\nRequires-Dist:" in read(member)
        elif is_wheel:
            files.append(member)
        else:  # an sdist lies in one folder, name-version/
            files.append(member.strip("/").partition("/")[2].removeprefix("src/"))
    return ArchiveContents(frozenset(module_names(files)), has_requirements)
