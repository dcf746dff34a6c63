"""rsync: make one folder hold what another holds, copying only what differs.

Two files are the same when their sizes and checksums are; times are not looked at, so that a fresh checkout of
unchanged files moves no byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.objects import RemoteObject, file_md5
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.transfer import Copy, Source, Target, below, is_remote, local_files


@dataclass(frozen=True)
class SyncPlan:
    """What has to be done; `unchanged` counts what is right already."""

    copies: list[Copy]
    deletions: list[Target]
    unchanged: int


def plan_sync(
    storage: Storage,
    source: str,
    target: str,
    *,
    recursive: bool,
    delete: bool,
    exclude: Callable[[str], bool] = lambda relative: False,
) -> SyncPlan:
    """Compare two folders.

    Args:
        source: a local folder or gs://BUCKET[/PREFIX].
        target: likewise; a local folder that does not exist counts as empty.
        recursive: take what is in sub-folders too.
        delete: also remove from the target what the source does not hold.
        exclude: told the relative path; true leaves it alone on both sides.

    Raises:
        NotFound: the source folder or a bucket does not exist.
    """
    if not is_remote(source) and not is_remote(target):
        raise InvalidArgument("Both folders are local; one of them should be a gs:// path.")
    if not is_remote(source) and not Path(source).expanduser().is_dir():
        raise NotFound(f"There is no folder {source}.")
    wanted, present = _tree(storage, source), _tree(storage, target)
    wanted, present = (
        {name: each for name, each in tree.items() if not exclude(name) and (recursive or "/" not in name)}
        for tree in (wanted, present)
    )
    copies = [
        Copy(each, _place(target, name))
        for name, each in wanted.items()
        if name not in present or not _same(each, present[name])
    ]
    deletions: list[Target] = []
    if delete:
        gone = (each for name, each in present.items() if name not in wanted)
        deletions = [each if isinstance(each, Path) else each.uri for each in gone]
    return SyncPlan(copies, deletions, len(wanted) - len(copies))


def _tree(storage: Storage, root: str) -> dict[str, Source]:
    if not is_remote(root):
        folder = Path(root).expanduser()
        return {file.relative_to(folder).as_posix(): file for file in local_files(folder)} if folder.is_dir() else {}
    prefix = _folder(root)
    objects = storage.list(prefix.bucket, prefix.name)
    return {each.uri.name[len(prefix.name) :]: each for each in objects if not each.uri.name.endswith("/")}


def _folder(root: str) -> ObjectUri:
    uri = ObjectUri.parse(root)
    return ObjectUri(uri.bucket, uri.name.rstrip("/") + "/" if uri.name else "")


def _place(target: str, relative: str) -> Target:
    if is_remote(target):
        folder = _folder(target)
        return ObjectUri(folder.bucket, folder.name + relative)
    return below(Path(target).expanduser(), relative)


def _same(one: Source, other: Source) -> bool:
    if _size(one) != _size(other):
        return False
    if isinstance(one, RemoteObject) and isinstance(other, RemoteObject):
        return one.crc32c == other.crc32c and (one.md5 == other.md5 or not one.md5 or not other.md5)
    return _md5(one) == _md5(other)


def _size(each: Source) -> int:
    return each.stat().st_size if isinstance(each, Path) else each.size_bytes


def _md5(each: Source) -> str | None:
    return file_md5(each) if isinstance(each, Path) else each.md5
