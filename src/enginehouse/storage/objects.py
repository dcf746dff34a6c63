"""Index rows and blobs kept in step: how an object is found, comes to be and is replaced.

Called by `local` and `uploads`; nothing else names a blob as an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from enginehouse.core.clock import Clock
from enginehouse.core.errors import Aborted, Internal
from enginehouse.core.names import check_object_name
from enginehouse.storage.base import (
    NO_DIGESTS,
    NO_PRECONDITIONS,
    Digests,
    ObjectAttributes,
    ObjectInfo,
    Preconditions,
)
from enginehouse.storage.blobs import BlobDirectory, NewBlob
from enginehouse.storage.checksums import Checksums
from enginehouse.storage.index import Index
from enginehouse.storage.rows import Rows, StoredObject


@dataclass(frozen=True)
class Draft:
    """An object that shall come to be; `component_count` as in `ObjectInfo`."""

    bucket: str
    name: str
    attributes: ObjectAttributes
    preconditions: Preconditions
    component_count: int | None = None


class ObjectTable:
    """The objects of a local store. Safe from any thread."""

    def __init__(self, index: Index, blobs: BlobDirectory, clock: Clock) -> None:
        self._index = index
        self._blobs = blobs
        self._clock = clock

    def find(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> StoredObject:
        """The object; NotFound and ConditionNotMet as in `ObjectStore.get`."""
        with self._index.read() as rows:
            stored = rows.object(bucket, name, generation)
        preconditions.check(stored.info)
        return stored

    def until_it_stays(self, find: Callable[[], StoredObject]) -> Iterator[StoredObject]:
        """`find` again and again, as its blob may be replaced before it is opened.

        Raises:
            Internal: the blob is gone, though the index still names it.
        """
        tried = None
        while True:
            stored = find()
            if stored.blob == tried:
                raise Internal(f"The content of {stored.info.bucket}/{stored.info.name} is missing on the disk.")
            tried = stored.blob
            yield stored

    def check_destination(self, bucket: str, name: str, preconditions: Preconditions) -> None:
        """Judge early what `put` judges again."""
        check_object_name(name)
        with self._index.read() as rows:
            rows.check_bucket(bucket)
            present = rows.find(bucket, name) if preconditions != NO_PRECONDITIONS else None
        preconditions.check(present.info if present is not None else None)

    def put(
        self, rows: Rows, draft: Draft, blob: str, content: Checksums | ObjectInfo
    ) -> tuple[ObjectInfo, StoredObject | None]:
        """Name a complete blob as an object: the only way by which objects come to be.

        Args:
            rows: the transaction.
            draft: what the object shall be.
            blob: its content.
            content: size and checksums of the blob.

        Returns:
            The new object, and the one that it replaces, whose blob must be unlinked after the commit.
        """
        rows.check_bucket(draft.bucket)
        replaced = rows.find(draft.bucket, draft.name)
        draft.preconditions.check(replaced.info if replaced is not None else None)
        now_ns = self._clock.time_ns()
        info = ObjectInfo(
            bucket=draft.bucket,
            name=draft.name,
            size_bytes=content.size_bytes,
            md5=content.md5,
            crc32c=content.crc32c,
            generation=rows.next_generation(now_ns),
            component_count=draft.component_count,
            created_ns=now_ns,
            updated_ns=now_ns,
            **vars(draft.attributes),
        )
        rows.put_object(StoredObject(info, blob))
        return info, replaced

    def commit(
        self, draft: Draft, blob: str, content: Checksums | ObjectInfo, *, consumed: Sequence[ObjectInfo] = ()
    ) -> ObjectInfo:
        """`put` in a transaction of its own, in which `consumed` objects vanish unless they changed."""
        with self._index.write() as rows:
            info, replaced = self.put(rows, draft, blob, content)
            vanished = [replaced]
            for source in consumed:
                stored = rows.find(source.bucket, source.name)
                if stored is not None and stored.info.generation == source.generation:
                    rows.delete_object(source.bucket, source.name)
                    vanished.append(stored)
        for stored in vanished:
            self.unlink(stored)
        return info

    def unlink(self, forgotten: StoredObject | None) -> None:
        """Delete the blob of an object that the index has forgotten."""
        if forgotten is not None:
            self._blobs.unlink(forgotten.blob)


class LocalObjectWriter:
    """`ObjectWriter` of the local store."""

    def __init__(self, objects: ObjectTable, draft: Draft, new: NewBlob) -> None:
        self._objects = objects
        self._draft = draft
        self._new: NewBlob | None = new
        self._checksums = Checksums()

    def write(self, data: bytes) -> None:
        if self._new is None:
            raise Aborted("The writer was committed or aborted before.")
        self._checksums.update(data)
        self._new.write(data)

    def commit(self, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        if self._new is None:
            raise Aborted("The writer was committed or aborted before.")
        new, self._new = self._new, None
        with new:
            self._checksums.verify(expected)
            return self._objects.commit(self._draft, new.blob, self._checksums)

    def abort(self) -> None:
        if self._new is not None:
            self._new.discard()
            self._new = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
        elif self._new is not None:
            self.commit()
