"""Objects as files in a directory, and never outside it.

Comes in: a listing and a directory. Goes out: files under the objects' names behind the prefix. Called by `local`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.errors import InvalidArgument
from enginehouse.storage.base import ObjectInfo
from enginehouse.storage.blobs import link_or_copy

_MAX_SEGMENT_BYTES = 255
"""NAME_MAX of every Linux file system in use."""


@dataclass(frozen=True)
class Placement:
    """Where one object goes; a placement of a name that ends with "/" is a directory."""

    info: ObjectInfo
    relative: Path
    is_directory: bool


def folder_prefix(prefix: str) -> str:
    """`prefix` with the slash that makes it a folder; the whole bucket is empty."""
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def plan(folder: str, objects: Iterable[ObjectInfo]) -> list[Placement]:
    """Decide where each object goes, before anything is written.

    Raises:
        InvalidArgument: see `ObjectStore.export`.
    """
    placements = [
        Placement(info, _relative_path(info, folder), info.name.endswith("/"))
        for info in objects
        if info.name != folder
    ]
    directories = {parent for placement in placements for parent in placement.relative.parents}
    for placement in placements:
        if not placement.is_directory and placement.relative in directories:
            name = placement.info.name
            raise InvalidArgument(
                f"{name!r} and the objects below '{name}/' can't both be files. Delete or rename one side.",
                field="prefix",
            )
    return placements


def make_directories(root: Path, placements: Sequence[Placement]) -> None:
    """Make all directories, refusing those that a link leads out of `root`."""
    root.mkdir(parents=True, exist_ok=True)
    real_root = root.resolve()
    for relative in sorted({p.relative if p.is_directory else p.relative.parent for p in placements}):
        directory = root / relative
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidArgument(f"{directory} is in the way: it is no directory.", field="directory") from None
        if not directory.resolve().is_relative_to(real_root):
            raise InvalidArgument(f"{directory} leads out of {root}.", field="directory")


def place(source: Path, target: Path, *, link: bool) -> None:
    """Put one file where it goes, in the place of an older one.

    Raises:
        InvalidArgument: there is a directory.
        FileNotFoundError: `source` is gone.
    """
    try:
        target.unlink(missing_ok=True)
    except IsADirectoryError:
        raise InvalidArgument(f"{target} is in the way: it is a directory.", field="directory") from None
    if link:
        link_or_copy(source, target)
    else:
        shutil.copyfile(source, target)


def _relative_path(info: ObjectInfo, folder: str) -> Path:
    inner = info.name[len(folder) :].removesuffix("/")
    for segment in inner.split("/"):
        if segment in ("", ".", "..") or "\0" in segment or len(segment.encode()) > _MAX_SEGMENT_BYTES:
            raise InvalidArgument(
                f"The object name {info.name!r} can't become a file: its part {segment!r} is not a file name.",
                field="prefix",
            )
    return Path(inner)
