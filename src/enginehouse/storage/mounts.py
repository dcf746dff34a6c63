"""Buckets made of files: a directory of this machine, or whatever fsspec reaches (`s3://…`).

A file's path below the root is the object's name. There are no checksums without reading every byte, so none are
told; the time of the last change stands for the generation, and attributes such as metadata are not kept. A name that
ends in a slash is an empty folder. Called by `mapped`.
"""

from __future__ import annotations

import bisect
import contextlib
import importlib
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Any, BinaryIO, cast

from enginehouse.core.errors import EngineError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from enginehouse.core.ids import new_id
from enginehouse.core.names import check_object_name
from enginehouse.storage.base import DEFAULT_CONTENT_TYPE, BucketInfo, ListPage, ObjectInfo
from enginehouse.storage.listing import Query, list_page
from enginehouse.storage.rows import StoredObject

_MICROSECOND_NS = 1000
_NANOSECONDS = 1_000_000_000
_BLOCK_BYTES = 4 * 1024 * 1024
_TEMPORARY = ".enginehouse-"
"""Begins the names of files that are being written."""


class FileBucket:
    """The part of a `RemoteBucket` that all file systems share; subclasses find and open files."""

    def __init__(self, name: str, where: str) -> None:
        self._name = name
        self._where = where

    def info(self) -> BucketInfo:
        return BucketInfo(name=self._name, created_ns=0, updated_ns=0)

    def get(self, name: str, generation: int | None = None) -> ObjectInfo:
        found = self._find(name) if _is_path(name.removesuffix("/")) else None
        if found is None or generation not in (None, found.generation):
            raise NotFound(f"No such object: {self._name}/{name} (the bucket is mapped to {self._where})")
        return found

    def open(self, name: str, generation: int | None = None) -> tuple[ObjectInfo, BinaryIO]:
        info = self.get(name, generation)
        return info, self._open(name)

    def list(
        self,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_offset: str = "",
        end_offset: str = "",
        include_trailing_delimiter: bool = False,
        page_token: str = "",
        max_results: int = 1000,
    ) -> ListPage:
        query = Query(self._name, prefix, delimiter, start_offset, end_offset, include_trailing_delimiter)
        folder = prefix.rpartition("/")[0]
        found = self._below(folder) if not folder or _is_path(folder) else ()
        return list_page(_Sorted(found), query, page_token, max_results)

    def put(self, name: str, content: Path) -> ObjectInfo:
        """Make or replace an object, seen whole or not at all.

        Raises:
            InvalidArgument: the name is no path downwards.
            FailedPrecondition: a folder or file is in the way.
        """
        folder = name.removesuffix("/")
        if not _is_path(folder):
            raise InvalidArgument(
                f"{name!r} is no path: the bucket {self._name} is mapped to {self._where}, where names are paths "
                "without empty parts, '.' and '..'.",
                field="name",
            )
        if folder != name:
            self._make_folder(folder)
        else:
            self._put(name, content)
        return self._find(name) or self._object(name, content.stat().st_size, content.stat().st_mtime_ns)

    def delete(self, name: str) -> None:
        """Remove an object that is there; a folder that is not empty stays."""
        if name.endswith("/"):
            self._remove_folder(name.removesuffix("/"))
        else:
            self._remove(name)

    def _find(self, name: str) -> ObjectInfo | None:
        """The file with this path, or the folder where it ends in a slash, if there is one."""
        raise NotImplementedError

    def _put(self, name: str, content: Path) -> None:
        raise NotImplementedError

    def _make_folder(self, folder: str) -> None:
        raise NotImplementedError

    def _remove(self, name: str) -> None:
        raise NotImplementedError

    def _remove_folder(self, folder: str) -> None:
        raise NotImplementedError

    def _open(self, name: str) -> BinaryIO:
        raise NotImplementedError

    def _below(self, folder: str) -> Iterable[ObjectInfo]:
        """All files below a folder, in any order."""
        raise NotImplementedError

    def _object(self, name: str, size_bytes: int, modified_ns: int) -> ObjectInfo:
        return ObjectInfo(
            bucket=self._name,
            name=name,
            size_bytes=size_bytes,
            md5="",
            crc32c="",
            generation=max(modified_ns // _MICROSECOND_NS, 1),
            created_ns=modified_ns,
            updated_ns=modified_ns,
            content_type=guess_type(name)[0] or DEFAULT_CONTENT_TYPE,
        )


class DirectoryBucket(FileBucket):
    """A directory of this machine. Links that lead out of it are as good as absent.

    Raises:
        FailedPrecondition: there is no such directory.
    """

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root.as_uri())
        if not root.is_dir():
            raise FailedPrecondition(f"The bucket {name} is mapped to {root}, which is no directory.")
        self._root = root.resolve()

    def path(self, name: str) -> Path | None:
        """The file of an object, None if there is none."""
        path = self._inside(name)
        return path if path is not None and path.is_file() and not path.name.startswith(_TEMPORARY) else None

    def _inside(self, name: str) -> Path | None:
        """Where a name leads, None for out of the directory."""
        path = (self._root / name).resolve()
        return path if path.is_relative_to(self._root) else None

    def _find(self, name: str) -> ObjectInfo | None:
        try:
            if name.endswith("/"):
                folder = self._inside(name)
                if folder is None or not folder.is_dir() or any(folder.iterdir()):
                    return None
                return self._object(name, 0, folder.stat().st_mtime_ns)
            path = self.path(name)
            status = path.stat() if path is not None else None
        except OSError:  # too long for the file system, or just deleted
            return None
        return None if status is None else self._object(name, status.st_size, status.st_mtime_ns)

    def _put(self, name: str, content: Path) -> None:
        target = self._target(name)
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{_TEMPORARY}{new_id()}")
            try:
                shutil.copyfile(content, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: str) -> None:
        with self._told():
            self._target(folder).mkdir(parents=True, exist_ok=True)

    def _remove(self, name: str) -> None:
        with self._told():
            (self._root / name).unlink(missing_ok=True)  # a link itself, not what it leads to
        self._remove_folder(name.rpartition("/")[0])  # in a bucket, a folder ends with its last object

    def _remove_folder(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # not empty
            while folder:
                (self._root / folder).rmdir()
                folder = folder.rpartition("/")[0]

    def _target(self, name: str) -> Path:
        path = self._inside(name)
        if path is None:
            raise FailedPrecondition(f"{name} leads out of {self._where}, by a link; nothing is written there.")
        return path

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Let the file system's refusals be the API's."""
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise FailedPrecondition(
                f"{self._where} can't have it: a file and a folder can't have the same name there ({error.strerror})."
            ) from error
        except OSError as error:
            raise FailedPrecondition(f"{self._where} can't be written: {error.strerror}.") from error

    def _open(self, name: str) -> BinaryIO:
        path = self.path(name)
        if path is None:
            raise NotFound(f"No such object: {self._name}/{name}")
        return path.open("rb")

    def _below(self, folder: str) -> Iterable[ObjectInfo]:
        for directory, folders, files in os.walk(self._root / folder):
            if not folders and not files and Path(directory) != self._root and self._inside(directory) is not None:
                empty = Path(directory).relative_to(self._root).as_posix() + "/"
                if (found := self._find(empty)) is not None:
                    yield found
            for file in files:
                name = (Path(directory) / file).relative_to(self._root).as_posix()
                if _is_path(name) and (found := self._find(name)) is not None:
                    yield found


class FsspecBucket(FileBucket):
    """A file system that fsspec knows; credentials are found as its library finds them.

    Raises:
        FailedPrecondition: fsspec, or its library for this kind of URI, is not installed; says what to install.
    """

    def __init__(self, name: str, uri: str) -> None:
        super().__init__(name, uri)
        scheme = uri.partition("://")[0]
        try:
            self._files, self._root = importlib.import_module("fsspec").core.url_to_fs(uri)
        except ImportError:
            library = {"s3": "s3fs", "gs": "gcsfs"}.get(scheme, "fsspec")
            raise FailedPrecondition(
                f"The bucket {name} is mapped to {uri}, which takes a library: pip install {library}"
            ) from None
        except ValueError as error:
            raise InvalidArgument(f"The bucket {name} is mapped to {uri}: {error}", field="bucket_mappings") from None
        self._root = self._root.rstrip("/")

    def _find(self, name: str) -> ObjectInfo | None:
        if name.endswith("/"):  # folders there exist by their files
            return None
        try:
            found = self._files.info(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(error) from error
        return self._as_object(name, found) if found.get("type") == "file" else None

    def _open(self, name: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self._files.open(f"{self._root}/{name}", "rb", block_size=_BLOCK_BYTES))
        except FileNotFoundError:
            raise NotFound(f"No such object: {self._name}/{name}") from None
        except Exception as error:
            raise self._failed(error) from error

    def _put(self, name: str, content: Path) -> None:
        try:
            self._files.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(content), f"{self._root}/{name}")
        except Exception as error:
            raise self._failed(error, "written") from error

    def _make_folder(self, folder: str) -> None:
        try:
            self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)
        except Exception as error:
            raise self._failed(error, "written") from error

    def _remove(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._failed(error, "written") from error

    def _remove_folder(self, folder: str) -> None:
        with contextlib.suppress(Exception):  # not empty, or there are no folders at all
            self._files.rmdir(f"{self._root}/{folder}")

    def _below(self, folder: str) -> Iterable[ObjectInfo]:
        try:
            found = self._files.find(f"{self._root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._failed(error) from error
        names = ((path[len(self._root) + 1 :], info) for path, info in found.items())
        return [self._as_object(name, info) for name, info in names if _is_path(name)]

    def _as_object(self, name: str, info: dict[str, Any]) -> ObjectInfo:
        changed = next((info[key] for key in ("mtime", "LastModified", "updated", "created") if key in info), 0)
        seconds = changed.timestamp() if isinstance(changed, datetime) else changed
        modified_ns = int(seconds * _NANOSECONDS) if isinstance(seconds, int | float) else 0
        return self._object(name, int(info.get("size") or 0), modified_ns)

    def _failed(self, error: Exception, done: str = "read") -> EngineError:
        return Unavailable(f"{self._where} can't be {done}: {error}")


class _Sorted:
    """Objects in memory, to be listed from."""

    def __init__(self, objects: Iterable[ObjectInfo]) -> None:
        self._objects: Sequence[ObjectInfo] = sorted(objects, key=lambda info: info.name)  # code points sort as UTF-8

    def objects_from(self, bucket: str, start: str, end: str | None) -> Generator[StoredObject]:
        first = bisect.bisect_left(self._objects, start, key=lambda info: info.name)
        for info in self._objects[first:]:
            if end is not None and info.name >= end:
                return
            yield StoredObject(info, "")


def _is_path(name: str) -> bool:
    """Whether a name is a path downwards: nothing of it could lead out of a root or mean another file."""
    try:
        check_object_name(name)
    except InvalidArgument:
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))
