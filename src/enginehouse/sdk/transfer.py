"""Copying between the local disk and buckets: first a plan, then its parallel execution.

The rules of `cp` are those of the shell and of `gsutil`: into a folder if the target is one (a bucket, an existing
folder, anything ending with `/`), else to the target's own name. A plan is complete and judged before a byte moves.
"""

from __future__ import annotations

import glob
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.errors import EngineError, InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.objects import OnBytes, RemoteObject, ignore_bytes
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.wildcards import has_wildcard, resolve

THREADS = 8

Source = RemoteObject | Path
Target = ObjectUri | Path


@dataclass(frozen=True)
class Copy:
    """One file or object to bring to one place."""

    source: Source
    target: Target

    @property
    def size_bytes(self) -> int:
        return self.source.stat().st_size if isinstance(self.source, Path) else self.source.size_bytes

    @property
    def source_text(self) -> str:
        return str(self.source) if isinstance(self.source, Path) else str(self.source.uri)


@dataclass(frozen=True)
class Failure:
    """A copy that did not come about, and why."""

    copy: Copy
    error: Exception


@dataclass(frozen=True)
class _Item:
    """A source with its path below the target folder; `folder` tells that it came out of a folder."""

    source: Source
    relative: str
    folder: bool


def is_remote(text: str) -> bool:
    return text.startswith("gs://")


def plan_copy(storage: Storage, sources: Sequence[str], target: str, *, recursive: bool) -> list[Copy]:
    """What `cp SOURCES TARGET` has to copy.

    Args:
        sources: local paths or gs:// URIs, wildcards allowed.
        target: a local path or a gs:// URI without wildcards.
        recursive: take folders with all that is below them.

    Raises:
        NotFound: a source matches nothing, or the target's bucket does not exist.
        InvalidArgument: a folder without `recursive`, two sources for one target, a name that can't be a local file.
    """
    items: list[_Item] = []
    several = len(sources) > 1
    for text in sources:
        several = several or has_wildcard(text)
        items += _remote_items(storage, text, recursive) if is_remote(text) else _local_items(text, recursive)
    into = _is_folder(storage, target)
    if several and len(items) > 1 and not into:
        if not is_remote(target) and Path(target).exists():
            raise InvalidArgument(f"{target} is a file, but there are {len(items)} things to copy; name a folder.")
        into = True
    copies = [Copy(item.source, _target(item, target, into)) for item in items]
    _refuse_collisions(copies)
    return copies


def _local_items(text: str, recursive: bool) -> Iterator[_Item]:
    path = Path(text).expanduser()
    # Path.glob takes no absolute pattern.
    paths = [path] if path.exists() else [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    if not paths:
        raise NotFound(f"There is no file {text}.")
    for each in paths:
        if not each.is_dir():
            yield _Item(each, each.name, folder=False)
        elif recursive:
            name = each.resolve().name
            for file in local_files(each):
                yield _Item(file, f"{name}/{file.relative_to(each).as_posix()}", folder=True)
        elif len(paths) == 1:
            raise InvalidArgument(f"{text} is a folder; add -r to copy all that is in it.")


def _remote_items(storage: Storage, text: str, recursive: bool) -> Iterator[_Item]:
    found = resolve(storage, text)
    for each in found.objects:
        yield _Item(each, each.uri.name.rpartition("/")[2], folder=False)
    if found.prefixes and not recursive and not found.objects:
        raise InvalidArgument(f"{text} is a folder; add -r to copy all that is in it.")
    for prefix in found.prefixes if recursive else ():
        name = prefix.name.rstrip("/").rpartition("/")[2] or prefix.bucket
        for each in storage.list(prefix.bucket, prefix.name):
            if not each.uri.name.endswith("/"):  # an empty object that stands for a folder
                yield _Item(each, f"{name}/{each.uri.name[len(prefix.name) :]}", folder=True)


def local_files(folder: Path) -> Iterator[Path]:
    """All files below a folder, by path; links to folders are not followed."""
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            yield from local_files(each)
        elif each.is_file():
            yield each


def _is_folder(storage: Storage, target: str) -> bool:
    if not is_remote(target):
        return target.endswith("/") or Path(target).expanduser().is_dir()
    uri = ObjectUri.parse(target)
    if not uri.name or uri.name.endswith("/"):
        storage.get_bucket(uri.bucket)
        return True
    return storage.find(uri) is None and storage.has_prefix(uri)


def _target(item: _Item, target: str, into: bool) -> Target:
    relative = item.relative
    if not into and item.folder:
        relative = relative.partition("/")[2]  # the folder itself is given the target's name
    if is_remote(target):
        uri = ObjectUri.parse(target)
        folder = uri.name.rstrip("/") + "/" if uri.name else ""
        return ObjectUri(uri.bucket, folder + relative) if into or item.folder else uri
    root = Path(target).expanduser()
    return below(root, relative) if into or item.folder else root


def below(root: Path, relative: str) -> Path:
    """`root/relative`, never outside `root`.

    Raises:
        InvalidArgument: an object's name that can't be a path below a folder.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidArgument(f"An object named {relative!r} can't be a local file.")
    return root.joinpath(*parts)


def _refuse_collisions(copies: Iterable[Copy]) -> None:
    seen: dict[str, Copy] = {}
    for copy in copies:
        other = seen.setdefault(str(copy.target), copy)
        if other is not copy:
            raise InvalidArgument(
                f"{other.source_text} and {copy.source_text} would both become {copy.target}; copy them one by one."
            )


class Stopped(Exception):
    """Raised inside the transfers under way when the user interrupts."""


def run_copies(
    storage: Storage,
    copies: Sequence[Copy],
    *,
    threads: int = THREADS,
    on_bytes: OnBytes = ignore_bytes,
    on_done: Callable[[Copy], None] = lambda copy: None,
) -> list[Failure]:
    """Carry out a plan, several at a time; one failure does not stop the others.

    Args:
        on_bytes: called from the worker threads.
        on_done: called in the calling thread after each copy that came about.

    Returns:
        The copies that failed, with their errors.
    """
    stop = threading.Event()

    def count(number: int) -> None:
        if stop.is_set():
            raise Stopped
        on_bytes(number)

    failures: list[Failure] = []
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(copies)))) as pool:
        pending = {pool.submit(copy_one, storage, copy, count): copy for copy in copies}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    copy = pending.pop(future)
                    error = future.exception()
                    if isinstance(error, (EngineError, OSError)):
                        failures.append(Failure(copy, error))
                    elif error is not None:
                        raise error
                    else:
                        on_done(copy)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def copy_one(storage: Storage, copy: Copy, on_bytes: OnBytes = ignore_bytes) -> None:
    """Carry out one copy."""
    source, target = copy.source, copy.target
    if isinstance(source, Path):
        if isinstance(target, Path):
            raise InvalidArgument(f"{source} and {target} are both local; one of them should be a gs:// path.")
        storage.upload_file(source, target, on_bytes=on_bytes)
    elif isinstance(target, Path):
        storage.download_file(source, target, on_bytes=on_bytes)
    else:
        storage.copy(source.uri, target)
        on_bytes(source.size_bytes)
