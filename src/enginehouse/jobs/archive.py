"""What a package archive holds, read without unpacking or running anything.

In: the bytes of an sdist (.tar.gz, .tgz, .tar, .zip) or a wheel (.whl). Out: the modules in it and whether it asks
for others. Called by `validate` before a job is queued.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

_MAX_MEMBERS = 100_000
_SKIPPED_FOLDERS = re.compile(r"(\.egg-info|\.dist-info|\.data)$")


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
                return _contents(archive.namelist(), is_wheel=name.endswith(".whl"), read=_zip_reader(archive))
        if name.endswith((".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz")):
            with tarfile.open(fileobj=file) as tar:
                members = _tar_members(tar)
                return _contents(members, is_wheel=False, read=lambda member: _read_tar(tar, member))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, UnicodeDecodeError) as error:
        raise UnreadableArchive(f"it is damaged or not an archive: {error}") from None
    raise UnreadableArchive("a package is an sdist (.tar.gz, .zip) or a wheel (.whl)")


def _tar_members(tar: tarfile.TarFile) -> list[str]:
    members = []
    for member in tar:
        members.append(member.name)
        if len(members) > _MAX_MEMBERS:
            raise UnreadableArchive(f"it holds more than {_MAX_MEMBERS} files")
    return members


def _read_tar(tar: tarfile.TarFile, member: str) -> str:
    file = tar.extractfile(member)
    return file.read(1 << 20).decode("utf-8", "replace") if file else ""


def _zip_reader(archive: zipfile.ZipFile):  # type: ignore[no-untyped-def]  # a closure over one open archive
    def read(member: str) -> str:
        with archive.open(member) as file:
            return file.read(1 << 20).decode("utf-8", "replace")

    return read


def _contents(members: Iterable[str], *, is_wheel: bool, read) -> ArchiveContents:  # type: ignore[no-untyped-def]
    modules: set[str] = set()
    has_requirements = False
    for member in members:
        parts = member.strip("/").split("/")
        if parts[-1] == "requires.txt":
            has_requirements = has_requirements or bool(read(member).strip())
        elif parts[-1] in ("METADATA", "PKG-INFO"):
            has_requirements = has_requirements or "\nRequires-Dist:" in read(member)
        elif parts[-1].endswith(".py"):
            if not is_wheel:
                parts = parts[1:]  # an sdist lies in one folder, name-version/
                if parts[:1] == ["src"]:
                    parts = parts[1:]
            module = _module_name(parts)
            if module:
                modules.add(module)
    return ArchiveContents(frozenset(modules), has_requirements)


def _module_name(parts: list[str]) -> str:
    if not parts or any(_SKIPPED_FOLDERS.search(part) for part in parts) or parts == ["setup.py"]:
        return ""
    parts = [*parts[:-1], parts[-1].removesuffix(".py")]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) if all(part.isidentifier() for part in parts) else ""
