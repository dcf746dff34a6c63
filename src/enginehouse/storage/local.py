"""The object store in a local directory.

    ROOT/index.sqlite3      which objects there are (`index`, `rows`)
    ROOT/blobs/xx/…         their content, immutable (`blobs`)

Every write goes the same way: blob complete → index row in one transaction → replaced blob unlinked. A kill between
two steps leaves a blob that nobody names; opening the store collects those. One store serves all threads of a
process, and several processes may have the same directory open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, InvalidArgument, NotEmpty, NotFound
from enginehouse.core.names import check_bucket_id, check_object_name
from enginehouse.storage.base import (
    MAX_COMPOSE_SOURCES,
    NO_DIGESTS,
    NO_PRECONDITIONS,
    AttributeChange,
    BucketInfo,
    ComposeSource,
    Digests,
    ListPage,
    ObjectAttributes,
    ObjectInfo,
    ObjectWriter,
    Preconditions,
    TextPage,
    UploadStatus,
)
from enginehouse.storage.blobs import BlobDirectory
from enginehouse.storage.checksums import Checksums
from enginehouse.storage.export import folder_prefix, make_directories, place, plan
from enginehouse.storage.index import Index
from enginehouse.storage.listing import Query, list_page, name_after_prefix, text_page
from enginehouse.storage.objects import Draft, LocalObjectWriter, ObjectTable
from enginehouse.storage.resource import ResourceTexts
from enginehouse.storage.rows import StoredObject
from enginehouse.storage.uploads import Request, UploadSessions

_READ_BYTES = 1024 * 1024


class LocalObjectStore:
    """`ObjectStore` in a local directory; the rules are in `storage.base`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        """Open the store, making it if need be, and collect what a kill left.

        Raises:
            FailedPrecondition: the directory was written by a newer release.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._blobs = BlobDirectory(root / "blobs")
        self._index = Index(root / "index.sqlite3")
        self._objects = ObjectTable(self._index, self._blobs, clock)
        self._texts = ResourceTexts()
        self._uploads = UploadSessions(self._index, self._blobs, clock, self._objects)
        self._uploads.expire()
        self._blobs.collect(self._named_blobs)

    def close(self) -> None:
        self._index.close()

    # Buckets

    def create_bucket(
        self,
        name: str,
        *,
        project: str = "",
        location: str = "US",
        storage_class: str = "STANDARD",
        labels: Mapping[str, str] | None = None,
    ) -> BucketInfo:
        check_bucket_id(name)
        now_ns = self._clock.time_ns()
        info = BucketInfo(
            name=name,
            project=project,
            location=location,
            storage_class=storage_class,
            labels=dict(labels or {}),
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        with self._index.write() as rows:
            if rows.has_bucket(name):
                raise AlreadyExists(f"The bucket {name} exists already.")
            rows.put_bucket(info)
        return info

    def get_bucket(self, name: str, *, preconditions: Preconditions = NO_PRECONDITIONS) -> BucketInfo:
        with self._index.read() as rows:
            info = rows.bucket(name)
        preconditions.check(info)
        return info

    def list_buckets(self, *, project: str = "", prefix: str = "") -> Sequence[BucketInfo]:
        with self._index.read() as rows:
            return [
                info
                for info in rows.buckets()
                if info.name.startswith(prefix) and (not project or info.project in ("", project))
            ]

    def update_bucket(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> BucketInfo:
        with self._index.write() as rows:
            old = rows.bucket(name)
            preconditions.check(old)
            new = replace(
                old,
                labels=old.labels if labels is None else dict(labels),
                storage_class=storage_class or old.storage_class,
                metageneration=old.metageneration + 1,
                updated_ns=self._clock.time_ns(),
            )
            rows.put_bucket(new)
        return new

    def delete_bucket(self, name: str, *, preconditions: Preconditions = NO_PRECONDITIONS) -> None:
        with self._index.write() as rows:
            preconditions.check(rows.bucket(name))
            if not rows.is_empty(name):
                raise NotEmpty("The bucket you tried to delete is not empty.")
            rows.delete_bucket(name)

    # Objects

    def get(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        return self._objects.find(bucket, name, generation, preconditions).info

    def open_read(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> tuple[ObjectInfo, BinaryIO]:
        for stored in self._objects.until_it_stays(
            lambda: self._objects.find(bucket, name, generation, preconditions)
        ):
            with contextlib.suppress(FileNotFoundError):
                return stored.info, self._blobs.path(stored.blob).open("rb")
        raise AssertionError("unreachable")

    def open_at_once(
        self, bucket: str, name: str, *, generation: int | None = None
    ) -> tuple[ObjectInfo, BinaryIO] | None:
        stored = self._index.peek(lambda rows: rows.find(bucket, name))
        if stored is None or generation not in (None, stored.info.generation):
            return None
        try:
            return stored.info, self._blobs.open(stored.blob)
        except FileNotFoundError:  # replaced just now
            return None

    def change_mark(self) -> int | None:
        return self._index.peek(lambda rows: rows.change_mark())

    def writer(
        self,
        bucket: str,
        name: str,
        *,
        attributes: ObjectAttributes | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectWriter:
        self._objects.check_destination(bucket, name, preconditions)
        draft = Draft(bucket, name, attributes or ObjectAttributes(), preconditions)
        return LocalObjectWriter(self._objects, draft, self._blobs.create())

    def list(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_offset: str = "",
        end_offset: str = "",
        include_trailing_delimiter: bool = False,
        page_token: str = "",
        max_results: int = 1000,
    ) -> ListPage:
        query = Query(bucket, prefix, delimiter, start_offset, end_offset, include_trailing_delimiter)
        with self._index.read() as rows:
            rows.check_bucket(bucket)
            return list_page(rows, query, page_token, max_results)

    def list_texts(
        self,
        bucket: str,
        *,
        prefix: str = "",
        start_offset: str = "",
        end_offset: str = "",
        page_token: str = "",
        max_results: int = 1000,
    ) -> TextPage | None:
        query = Query(bucket, prefix, start_offset=start_offset, end_offset=end_offset)
        with self._index.read() as rows:
            return text_page(rows, query, self._texts, page_token, max_results) if rows.has_bucket(bucket) else None

    def update(
        self,
        bucket: str,
        name: str,
        change: AttributeChange,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        with self._index.write() as rows:
            stored = rows.object(bucket, name, generation)
            preconditions.check(stored.info)
            attributes = change(stored.info.attributes)
            info = replace(
                stored.info,
                **vars(attributes),
                metageneration=stored.info.metageneration + 1,
                updated_ns=self._clock.time_ns(),
            )
            rows.put_object(StoredObject(info, stored.blob))
        return info

    def delete(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> None:
        with self._index.write() as rows:
            stored = rows.object(bucket, name, generation)
            preconditions.check(stored.info)
            rows.delete_object(bucket, name)
        self._blobs.unlink(stored.blob)

    def copy(
        self,
        source_bucket: str,
        source_name: str,
        bucket: str,
        name: str,
        *,
        change: AttributeChange | None = None,
        source_generation: int | None = None,
        source_preconditions: Preconditions = NO_PRECONDITIONS,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        self._objects.check_destination(bucket, name, preconditions)

        def find() -> StoredObject:
            return self._objects.find(source_bucket, source_name, source_generation, source_preconditions)

        for source in self._objects.until_it_stays(find):
            with contextlib.suppress(FileNotFoundError), self._blobs.link(source.blob) as new:
                attributes = source.info.attributes
                draft = Draft(
                    bucket,
                    name,
                    change(attributes) if change else attributes,
                    preconditions,
                    source.info.component_count,
                )
                return self._objects.commit(draft, new.blob, source.info)
        raise AssertionError("unreachable")

    def move(
        self,
        bucket: str,
        source_name: str,
        name: str,
        *,
        source_preconditions: Preconditions = NO_PRECONDITIONS,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        check_object_name(name)
        if name == source_name:
            raise InvalidArgument("An object can't be moved onto itself.", field="destinationObject")
        with self._index.write() as rows:
            source = rows.object(bucket, source_name)
            source_preconditions.check(source.info)
            rows.delete_object(bucket, source_name)
            draft = Draft(bucket, name, source.info.attributes, preconditions, source.info.component_count)
            info, replaced = self._objects.put(rows, draft, source.blob, source.info)
        self._objects.unlink(replaced)
        return info

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[ComposeSource],
        *,
        attributes: ObjectAttributes | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
        expected: Digests = NO_DIGESTS,
        delete_sources: bool = False,
    ) -> ObjectInfo:
        check_sources(sources)
        self._objects.check_destination(bucket, name, preconditions)
        with contextlib.ExitStack() as stack:
            opened = []
            for source in sources:
                info, file = self.open_read(bucket, source.name, generation=source.generation)
                opened.append((info, stack.enter_context(file)))
            new = stack.enter_context(self._blobs.create())
            checksums = Checksums()
            for _, file in opened:
                while data := file.read(_READ_BYTES):
                    checksums.update(data)
                    new.write(data)
            checksums.verify(expected)
            infos = [info for info, _ in opened]
            draft = Draft(
                bucket,
                name,
                attributes or ObjectAttributes(),
                preconditions,
                sum(info.component_count or 1 for info in infos),
            )
            return self._objects.commit(draft, new.blob, checksums, consumed=infos if delete_sources else ())

    # Resumable uploads

    def create_upload(
        self,
        bucket: str,
        name: str,
        *,
        attributes: ObjectAttributes | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
        expected: Digests = NO_DIGESTS,
        size_bytes: int | None = None,
    ) -> UploadStatus:
        self._objects.check_destination(bucket, name, preconditions)
        request = Request(attributes or ObjectAttributes(), preconditions, expected, size_bytes)
        return self._uploads.create(bucket, name, request)

    def get_upload(self, upload_id: str) -> UploadStatus:
        return self._uploads.get(upload_id)

    def append_upload(self, upload_id: str, offset: int, data: bytes) -> int:
        return self._uploads.append(upload_id, offset, data)

    def finish_upload(self, upload_id: str, *, size_bytes: int, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        return self._uploads.finish(upload_id, size_bytes, expected)

    def cancel_upload(self, upload_id: str) -> None:
        self._uploads.cancel(upload_id)

    # The short way to the local disk

    def export(self, bucket: str, prefix: str, directory: Path, *, link: bool = True) -> Sequence[ObjectInfo]:
        folder = folder_prefix(prefix)
        with self._index.read() as rows:
            rows.check_bucket(bucket)
            stored = rows.objects_from(bucket, folder, name_after_prefix(folder))
            placements = plan(folder, [one.info for one in stored])
        make_directories(directory, placements)
        placed = []
        for placement in placements:
            target = directory / placement.relative
            info = placement.info if placement.is_directory else self._place(placement.info, target, link)
            if info is not None:
                placed.append(info)
        return placed

    def local_path(self, bucket: str, name: str) -> Path | None:
        return self._blobs.path(self._objects.find(bucket, name).blob)

    def _place(self, info: ObjectInfo, target: Path, link: bool) -> ObjectInfo | None:
        """Put the object's content at `target`; None when it was deleted since it was listed."""
        try:
            for stored in self._objects.until_it_stays(lambda: self._objects.find(info.bucket, info.name)):
                with contextlib.suppress(FileNotFoundError):
                    place(self._blobs.path(stored.blob), target, link=link)
                    return stored.info
        except NotFound:
            pass
        return None

    def _named_blobs(self, prefix: str) -> set[str]:
        with self._index.read() as rows:
            return rows.blobs(prefix)


def check_sources(sources: Sequence[ComposeSource]) -> None:
    """InvalidArgument for what can't be composed: nothing, or too much."""
    if not 1 <= len(sources) <= MAX_COMPOSE_SOURCES:
        raise InvalidArgument(
            f"An object is composed of 1 to {MAX_COMPOSE_SOURCES} objects, not {len(sources)}.",
            field="sourceObjects",
        )
