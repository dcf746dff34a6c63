"""Writing to buckets that lie elsewhere: content is gathered whole in a local store, then put in its place.

So checksums, resumable uploads and preconditions are those of any bucket, and what a client or an engine leaves
half-done is never seen. Called by `mapped`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, NotFound
from enginehouse.storage.base import (
    NO_DIGESTS,
    Digests,
    ObjectAttributes,
    ObjectInfo,
    ObjectWriter,
    Preconditions,
    UploadStatus,
)
from enginehouse.storage.local import LocalObjectStore
from enginehouse.storage.mounts import FileBucket

_PRECONDITIONS = "enginehouse-preconditions"
"""The staged object's metadata that tells what to judge when it is put in its place."""


class Staging:
    """What is on its way to mapped buckets. Thread-safe.

    Args:
        root: for the content.
        buckets: where it goes, by bucket name.
    """

    def __init__(self, root: Path, clock: Clock, buckets: Mapping[str, FileBucket]) -> None:
        self._store = LocalObjectStore(root, clock)
        self._buckets = buckets
        self.lock = threading.RLock()
        """Held while preconditions are judged and what they were judged for is done."""
        for name in buckets:
            try:
                self._store.create_bucket(name)
            except AlreadyExists:
                continue

    def close(self) -> None:
        self._store.close()

    def writer(
        self, bucket: str, name: str, attributes: ObjectAttributes | None, preconditions: Preconditions
    ) -> ObjectWriter:
        """See `ObjectStore.writer`."""
        preconditions.check(self.present(bucket, name))
        return _StagedWriter(self, self._store.writer(bucket, name, attributes=_noting(attributes, preconditions)))

    def create_upload(
        self,
        bucket: str,
        name: str,
        attributes: ObjectAttributes | None,
        preconditions: Preconditions,
        expected: Digests,
        size_bytes: int | None,
    ) -> UploadStatus:
        """See `ObjectStore.create_upload`."""
        preconditions.check(self.present(bucket, name))
        noted = _noting(attributes, preconditions)
        return self._store.create_upload(bucket, name, attributes=noted, expected=expected, size_bytes=size_bytes)

    def get_upload(self, upload_id: str) -> UploadStatus:
        status = self._store.get_upload(upload_id)
        return status if status.result is None else replace(status, result=self.carry(status.result))

    def append_upload(self, upload_id: str, offset: int, data: bytes) -> int:
        return self._store.append_upload(upload_id, offset, data)

    def finish_upload(self, upload_id: str, size_bytes: int, expected: Digests) -> ObjectInfo:
        return self.carry(self._store.finish_upload(upload_id, size_bytes=size_bytes, expected=expected))

    def cancel_upload(self, upload_id: str) -> None:
        self._store.cancel_upload(upload_id)

    def present(self, bucket: str, name: str) -> ObjectInfo | None:
        """The object that is in its place now."""
        try:
            return self._buckets[bucket].get(name)
        except NotFound:
            return None

    def carry(self, staged: ObjectInfo) -> ObjectInfo:
        """Put a staged object in its place; done before already, it is left as it is."""
        bucket, name = staged.bucket, staged.name
        with self.lock:
            try:
                content = self._store.local_path(bucket, name)
                self._store.get(bucket, name, generation=staged.generation)
            except NotFound:  # carried, or overwritten by who came later
                return _told(self._buckets[bucket].get(name), staged)
            assert content is not None
            try:
                Preconditions(**json.loads(staged.metadata[_PRECONDITIONS])).check(self.present(bucket, name))
                return _told(self._buckets[bucket].put(name, content), staged)
            finally:
                self._store.delete(bucket, name)


class _StagedWriter:
    """See `ObjectWriter`."""

    def __init__(self, staging: Staging, writer: ObjectWriter) -> None:
        self._staging = staging
        self._writer = writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def commit(self, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        return self._staging.carry(self._writer.commit(expected))

    def abort(self) -> None:
        self._writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()


def _noting(attributes: ObjectAttributes | None, preconditions: Preconditions) -> ObjectAttributes:
    given = attributes or ObjectAttributes()
    return replace(given, metadata={**given.metadata, _PRECONDITIONS: json.dumps(asdict(preconditions))})


def _told(info: ObjectInfo, staged: ObjectInfo) -> ObjectInfo:
    """What a client is told of an object that it has just written: its checksums, too."""
    return replace(info, md5=staged.md5, crc32c=staged.crc32c)
