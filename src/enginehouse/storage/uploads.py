"""Resumable uploads: sessions that may last for days and survive a restart of the engine.

A session is a row of the index plus the blob that its bytes are appended to; how far it came is the size of that
file and nothing else. Finishing names the blob as an object in one transaction, so no byte is copied or read again.
The checksums grow in memory beside the file; only after a restart the bytes already there are read once to catch up,
since MD5 can't be continued from its digest. Called by `local`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from enginehouse.core.clock import Clock
from enginehouse.core.errors import ConditionNotMet, InvalidArgument, NotFound, OutOfRange
from enginehouse.core.ids import new_id
from enginehouse.storage.base import Digests, ObjectAttributes, ObjectInfo, Preconditions, UploadStatus
from enginehouse.storage.blobs import BlobDirectory, write_all
from enginehouse.storage.checksums import Checksums
from enginehouse.storage.index import Index
from enginehouse.storage.objects import Draft, ObjectTable
from enginehouse.storage.rows import UploadRow

SESSION_LIFETIME_NS = 7 * 24 * 3600 * 1_000_000_000
"""How long a session lasts: a week, as in Cloud Storage."""
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Request:
    """What the object shall be, as told when the upload began."""

    attributes: ObjectAttributes
    preconditions: Preconditions
    expected: Digests
    size_bytes: int | None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Request:
        """Back from `dataclasses.asdict`."""
        return cls(
            ObjectAttributes(**value["attributes"]),
            Preconditions(**value["preconditions"]),
            Digests(**value["expected"]),
            value["size_bytes"],
        )


class _Progress:
    """The session in this process: its lock, and the checksums of what is on the disk (None: not known yet)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.checksums: Checksums | None = None


class UploadSessions:
    """All sessions of a store. Safe from any thread; requests for one session wait for each other."""

    def __init__(self, index: Index, blobs: BlobDirectory, clock: Clock, objects: ObjectTable) -> None:
        self._index = index
        self._blobs = blobs
        self._clock = clock
        self._objects = objects
        self._progress: dict[str, _Progress] = {}
        self._progress_lock = threading.Lock()

    def create(self, bucket: str, name: str, request: Request) -> UploadStatus:
        """Begin a session; the store has judged bucket and preconditions."""
        self.expire()
        upload_id = new_id(32)
        with self._blobs.create(mode=0o644) as new, self._index.write() as rows:
            row = UploadRow(upload_id, bucket, name, new.blob, asdict(request), None, self._clock.time_ns())
            rows.put_upload(row)
        return UploadStatus(upload_id, bucket, name, 0, request.size_bytes, None)

    def get(self, upload_id: str) -> UploadStatus:
        """See `ObjectStore.get_upload`."""
        with self._locked(upload_id) as (row, _):
            offset = row.result.size_bytes if row.result is not None else self._size_on_disk(row)
            announced = Request.from_json(row.request).size_bytes
            return UploadStatus(upload_id, row.bucket, row.name, offset, announced, row.result)

    def append(self, upload_id: str, offset: int, data: bytes) -> int:
        """See `ObjectStore.append_upload`."""
        with self._locked(upload_id) as (row, progress):
            if row.result is not None:
                raise OutOfRange("The upload is finished; it takes no more bytes.")
            checksums = progress.checksums or self._catch_up(row)
            have = checksums.size_bytes
            if offset > have:
                raise OutOfRange(f"The bytes from {offset} on can't be stored: only {have} came before them.")
            fresh = data[have - offset :]
            progress.checksums = None  # unknown until the write is through
            self._write(row, have, fresh)
            checksums.update(fresh)
            progress.checksums = checksums
            return checksums.size_bytes

    def finish(self, upload_id: str, size_bytes: int, expected: Digests) -> ObjectInfo:
        """See `ObjectStore.finish_upload`."""
        with self._locked(upload_id) as (row, progress):
            if row.result is not None:
                return row.result
            request = Request.from_json(row.request)
            checksums = progress.checksums or self._catch_up(row)
            for told in (size_bytes, request.size_bytes):
                if told is not None and told != checksums.size_bytes:
                    raise OutOfRange(f"The upload should have {told} bytes; {checksums.size_bytes} are stored.")
            try:
                checksums.verify(request.expected)
                checksums.verify(expected)
                result = self._commit(row, request, checksums)
            except (InvalidArgument, ConditionNotMet, NotFound):
                self._discard(row)
                raise
        self._forget(upload_id)
        return result

    def cancel(self, upload_id: str) -> None:
        """See `ObjectStore.cancel_upload`."""
        with self._locked(upload_id) as (row, _):
            self._discard(row)

    def expire(self) -> None:
        """Forget the sessions that are too old."""
        horizon_ns = self._clock.time_ns() - SESSION_LIFETIME_NS
        with self._index.read() as rows:
            old = rows.uploads_before(horizon_ns)
        for row in old:
            with suppress(NotFound):
                self.cancel(row.upload_id)

    def _commit(self, row: UploadRow, request: Request, checksums: Checksums) -> ObjectInfo:
        with self._index.write() as rows:
            draft = Draft(row.bucket, row.name, request.attributes, request.preconditions)
            result, replaced = self._objects.put(rows, draft, row.blob, checksums)
            rows.put_upload(replace(row, result=result))
        self._blobs.seal(row.blob)
        self._objects.unlink(replaced)
        return result

    def _discard(self, row: UploadRow) -> None:
        with self._index.write() as rows:
            rows.delete_upload(row.upload_id)
        if row.result is None:
            self._blobs.unlink(row.blob)
        self._forget(row.upload_id)

    @contextmanager
    def _locked(self, upload_id: str) -> Iterator[tuple[UploadRow, _Progress]]:
        """The session as it stands, with nobody else at it."""
        with self._progress_lock:
            progress = self._progress.setdefault(upload_id, _Progress())
        with progress.lock:
            try:
                with self._index.read() as rows:
                    row = rows.upload(upload_id)
            except NotFound:
                self._forget(upload_id)
                raise
            yield row, progress

    def _forget(self, upload_id: str) -> None:
        with self._progress_lock:
            self._progress.pop(upload_id, None)

    def _size_on_disk(self, row: UploadRow) -> int:
        return self._blobs.path(row.blob).stat().st_size

    def _catch_up(self, row: UploadRow) -> Checksums:
        """The checksums of the bytes that an earlier process (or a failed write) left in the file."""
        checksums = Checksums()
        with self._blobs.path(row.blob).open("rb") as file:
            while data := file.read(_READ_BYTES):
                checksums.update(data)
        return checksums

    def _write(self, row: UploadRow, offset: int, data: bytes) -> None:
        descriptor = os.open(self._blobs.path(row.blob), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
