"""The local store with windows to elsewhere: mapped buckets, and the real service for buckets that don't exist here.

    photos=file:///data/photos    a directory of this machine
    samples=gs://cloud-samples-data    a bucket of the real service, without credentials
    logs=s3://company-logs/ml     whatever fsspec reaches

Directories and what fsspec reaches are read and written (by way of `staging`); the real service is only read. What
has no place in a file, such as metadata and labels, is refused there. Everything else is the local store's. Called by
the composition root.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from enginehouse.core.clock import Clock
from enginehouse.core.errors import EngineError, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import check_bucket_id
from enginehouse.storage.base import (
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
from enginehouse.storage.export import folder_prefix, make_directories, plan
from enginehouse.storage.local import LocalObjectStore, check_sources
from enginehouse.storage.mounts import DirectoryBucket, FileBucket, FsspecBucket
from enginehouse.storage.remote import RemoteBucket, Service, ServiceBucket, Unreachable
from enginehouse.storage.staging import Staging

UNKNOWN_BUCKETS = ("refuse", "forward")
_COPY_BYTES = 1024 * 1024

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")


def parse_mappings(text: str) -> dict[str, str]:
    """`NAME=URI NAME=URI …` as a dictionary; in a URI, %20 stands for a blank.

    Raises:
        InvalidArgument: it is something else.
    """
    found: dict[str, str] = {}
    for item in text.split():
        name, equals, uri = item.partition("=")
        if not equals or "://" not in uri or name in found:
            raise InvalidArgument(
                f"{item!r} maps no bucket; write NAME=URI, each name once, with blanks between the mappings, such as "
                "photos=file:///data/photos",
                field="bucket_mappings",
            )
        found[check_bucket_id(name, field="bucket_mappings")] = uri
    return found


def open_bucket(name: str, uri: str, service: Service) -> RemoteBucket:
    """The bucket that `uri` means, under the name `name`.

    Raises:
        InvalidArgument, FailedPrecondition: it can't be read, and why.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidArgument(f"{uri} names a host; write file:///PATH.", field="bucket_mappings")
        return DirectoryBucket(name, Path(unquote(parts.path)))
    if parts.scheme == "gs" and not parts.path.strip("/"):
        return ServiceBucket(service, parts.netloc, name)
    return FsspecBucket(name, uri)


def _ours_alone(method: Method) -> Method:
    """A method that changes the bucket of its first argument in a way that only our own buckets know."""

    @functools.wraps(method)
    def checked(self: MappedObjectStore, bucket: str, *args: Any, **kwargs: Any) -> Any:
        self.check_ours(bucket)
        return method(self, bucket, *args, **kwargs)

    return cast(Method, checked)


class MappedObjectStore(LocalObjectStore):
    """`ObjectStore` in a local directory, plus what is mapped.

    Args:
        root: as of `LocalObjectStore`.
        clock: as of `LocalObjectStore`.
        mappings: URI by bucket name; such a bucket stands before a local one of the same name.
        service: the real service.
        unknown_buckets: what to do about a bucket that is not here: "refuse" it, or "forward" reading to `service`.

    Raises:
        InvalidArgument, FailedPrecondition: a mapping can't be read.
    """

    def __init__(
        self,
        root: Path,
        clock: Clock,
        *,
        mappings: Mapping[str, str],
        service: Service,
        unknown_buckets: str = "refuse",
    ) -> None:
        if unknown_buckets not in UNKNOWN_BUCKETS:
            raise InvalidArgument(
                f"{unknown_buckets!r} is neither {' nor '.join(UNKNOWN_BUCKETS)}.", field="unknown_buckets"
            )
        self._mapped = {name: open_bucket(name, uri, service) for name, uri in mappings.items()}
        self._service = service
        self._forwards = unknown_buckets == "forward"
        self._writable = {name: remote for name, remote in self._mapped.items() if isinstance(remote, FileBucket)}
        super().__init__(root, clock)
        self._staging = Staging(root / "staging", clock, self._writable)

    def close(self) -> None:
        self._staging.close()
        super().close()

    def check_ours(self, bucket: str) -> None:
        """FailedPrecondition for a mapped bucket."""
        if bucket in self._mapped:
            raise FailedPrecondition(
                f"The bucket {bucket} is mapped to elsewhere: its objects can be written and deleted, but neither "
                "their attributes nor the bucket itself can be changed here."
            )

    def _is_written_elsewhere(self, bucket: str) -> bool:
        """Whether writes to a bucket go elsewhere; FailedPrecondition where they can't."""
        if bucket not in self._mapped:
            return False
        if bucket not in self._writable:
            raise FailedPrecondition(f"The bucket {bucket} is mapped to a public bucket and can only be read here.")
        return True

    create_bucket = _ours_alone(LocalObjectStore.create_bucket)
    update_bucket = _ours_alone(LocalObjectStore.update_bucket)
    delete_bucket = _ours_alone(LocalObjectStore.delete_bucket)
    update = _ours_alone(LocalObjectStore.update)

    # Writing

    def writer(
        self,
        bucket: str,
        name: str,
        *,
        attributes: ObjectAttributes | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectWriter:
        if self._is_written_elsewhere(bucket):
            return self._staging.writer(bucket, name, attributes, preconditions)
        return super().writer(bucket, name, attributes=attributes, preconditions=preconditions)

    def delete(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> None:
        if not self._is_written_elsewhere(bucket):
            super().delete(bucket, name, generation=generation, preconditions=preconditions)
            return
        with self._staging.lock:
            preconditions.check(self._mapped[bucket].get(name, generation))
            self._writable[bucket].delete(name)

    def move(
        self,
        bucket: str,
        source_name: str,
        name: str,
        *,
        source_preconditions: Preconditions = NO_PRECONDITIONS,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        if not self._is_written_elsewhere(bucket):
            return super().move(
                bucket, source_name, name, source_preconditions=source_preconditions, preconditions=preconditions
            )
        if name == source_name:
            raise InvalidArgument("An object can't be moved onto itself.", field="destinationObject")
        with self._staging.lock:
            moved = self.copy(
                bucket,
                source_name,
                bucket,
                name,
                source_preconditions=source_preconditions,
                preconditions=preconditions,
            )
            self._writable[bucket].delete(source_name)
        return moved

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
        if not self._is_written_elsewhere(bucket):
            return super().compose(
                bucket,
                name,
                sources,
                attributes=attributes,
                preconditions=preconditions,
                expected=expected,
                delete_sources=delete_sources,
            )
        check_sources(sources)
        writer = self.writer(bucket, name, attributes=attributes, preconditions=preconditions)
        try:
            for source in sources:
                _info, file = self.open_read(bucket, source.name, generation=source.generation)
                _pour(file, writer)
            composed = writer.commit(expected)
        finally:
            writer.abort()
        for source in sources if delete_sources else ():
            if source.name != name:
                self._writable[bucket].delete(source.name)
        return composed

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
        if self._is_written_elsewhere(bucket):
            return self._staging.create_upload(bucket, name, attributes, preconditions, expected, size_bytes)
        return super().create_upload(
            bucket,
            name,
            attributes=attributes,
            preconditions=preconditions,
            expected=expected,
            size_bytes=size_bytes,
        )

    def get_upload(self, upload_id: str) -> UploadStatus:
        try:
            return super().get_upload(upload_id)
        except NotFound:
            return self._staging.get_upload(upload_id)

    def append_upload(self, upload_id: str, offset: int, data: bytes) -> int:
        try:
            return super().append_upload(upload_id, offset, data)
        except NotFound:
            return self._staging.append_upload(upload_id, offset, data)

    def finish_upload(self, upload_id: str, *, size_bytes: int, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        try:
            super().get_upload(upload_id)
        except NotFound:
            return self._staging.finish_upload(upload_id, size_bytes, expected)
        return super().finish_upload(upload_id, size_bytes=size_bytes, expected=expected)

    def cancel_upload(self, upload_id: str) -> None:
        try:
            super().cancel_upload(upload_id)
        except NotFound:
            self._staging.cancel_upload(upload_id)

    # Reading

    def get_bucket(self, name: str, *, preconditions: Preconditions = NO_PRECONDITIONS) -> BucketInfo:
        def elsewhere(remote: RemoteBucket) -> BucketInfo:
            info = remote.info()
            preconditions.check(info)
            return info

        return self._read(
            name, lambda: super(MappedObjectStore, self).get_bucket(name, preconditions=preconditions), elsewhere
        )

    def list_buckets(self, *, project: str = "", prefix: str = "") -> Sequence[BucketInfo]:
        here = super().list_buckets(project=project, prefix=prefix)
        shown = {info.name: info for info in here}
        for name, remote in self._mapped.items():
            if name.startswith(prefix):
                try:
                    shown[name] = remote.info()
                except EngineError:  # out of reach for now; it is mapped all the same
                    shown[name] = BucketInfo(name=name, created_ns=0, updated_ns=0)
        return sorted(shown.values(), key=lambda info: info.name)

    def get(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        def here() -> ObjectInfo:
            return super(MappedObjectStore, self).get(
                bucket, name, generation=generation, preconditions=preconditions
            )

        def elsewhere(remote: RemoteBucket) -> ObjectInfo:
            info = remote.get(name, generation)
            preconditions.check(info)
            return info

        return self._read(bucket, here, elsewhere)

    def open_read(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> tuple[ObjectInfo, BinaryIO]:
        def here() -> tuple[ObjectInfo, BinaryIO]:
            return super(MappedObjectStore, self).open_read(
                bucket, name, generation=generation, preconditions=preconditions
            )

        def elsewhere(remote: RemoteBucket) -> tuple[ObjectInfo, BinaryIO]:
            info, file = remote.open(name, generation)
            try:
                preconditions.check(info)
            except BaseException:
                file.close()
                raise
            return info, file

        return self._read(bucket, here, elsewhere)

    def open_at_once(
        self, bucket: str, name: str, *, generation: int | None = None
    ) -> tuple[ObjectInfo, BinaryIO] | None:
        return None if bucket in self._mapped else super().open_at_once(bucket, name, generation=generation)

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
        query: dict[str, Any] = {
            "prefix": prefix,
            "delimiter": delimiter,
            "start_offset": start_offset,
            "end_offset": end_offset,
            "include_trailing_delimiter": include_trailing_delimiter,
            "page_token": page_token,
            "max_results": max_results,
        }
        return self._read(
            bucket,
            lambda: super(MappedObjectStore, self).list(bucket, **query),
            lambda remote: remote.list(**query),
        )

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
        if bucket in self._mapped:
            return None
        return super().list_texts(
            bucket,
            prefix=prefix,
            start_offset=start_offset,
            end_offset=end_offset,
            page_token=page_token,
            max_results=max_results,
        )

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
        written_elsewhere = self._is_written_elsewhere(bucket)

        def here() -> ObjectInfo:
            if written_elsewhere:
                info, file = super(MappedObjectStore, self).open_read(
                    source_bucket, source_name, generation=source_generation
                )
                return pour(info, file)
            return super(MappedObjectStore, self).copy(
                source_bucket,
                source_name,
                bucket,
                name,
                change=change,
                source_generation=source_generation,
                source_preconditions=source_preconditions,
                preconditions=preconditions,
            )

        def elsewhere(remote: RemoteBucket) -> ObjectInfo:
            return pour(*remote.open(source_name, source_generation))

        def pour(info: ObjectInfo, file: BinaryIO) -> ObjectInfo:
            with file:
                source_preconditions.check(info)
                attributes = change(info.attributes) if change else info.attributes
                writer = self.writer(bucket, name, attributes=attributes, preconditions=preconditions)
                try:
                    _pour(file, writer)
                    return writer.commit()
                finally:
                    writer.abort()

        return self._read(source_bucket, here, elsewhere)

    def export(self, bucket: str, prefix: str, directory: Path, *, link: bool = True) -> Sequence[ObjectInfo]:
        def elsewhere(remote: RemoteBucket) -> Sequence[ObjectInfo]:
            folder = folder_prefix(prefix)
            objects: list[ObjectInfo] = []
            token = ""
            while True:
                page = remote.list(prefix=folder, page_token=token)
                objects += page.objects
                token = page.next_page_token
                if not token:
                    break
            placements = plan(folder, objects)
            make_directories(directory, placements)
            for placement in placements:
                if not placement.is_directory:
                    _, file = remote.open(placement.info.name)
                    target = directory / placement.relative
                    target.unlink(missing_ok=True)
                    with file, target.open("xb") as copy:
                        shutil.copyfileobj(file, copy, _COPY_BYTES)
            return [placement.info for placement in placements]

        return self._read(
            bucket, lambda: super(MappedObjectStore, self).export(bucket, prefix, directory, link=link), elsewhere
        )

    def local_path(self, bucket: str, name: str) -> Path | None:
        if bucket not in self._mapped:
            return super().local_path(bucket, name)
        self.get(bucket, name)
        remote = self._mapped[bucket]
        return remote.path(name) if isinstance(remote, DirectoryBucket) else None

    def _read(self, bucket: str, here: Callable[[], T], elsewhere: Callable[[RemoteBucket], T]) -> T:
        """Ask whoever has the bucket. What is here costs no more than without any mapping."""
        if bucket in self._mapped:
            return elsewhere(self._mapped[bucket])
        try:
            return here()
        except NotFound:
            if self._is_here(bucket) or not _is_bucket_id(bucket):
                raise
            advice = _advice(bucket, forwards=self._forwards)
            if not self._forwards:
                raise NotFound(f"The specified bucket does not exist: {bucket}. {advice}") from None
        try:
            return elsewhere(ServiceBucket(self._service, bucket))
        except (NotFound, Unreachable) as error:
            raise NotFound(f"The bucket {bucket} does not exist here, and {error.message} {advice}") from None

    def _is_here(self, bucket: str) -> bool:
        try:
            super().get_bucket(bucket)
        except NotFound:
            return False
        return True


def _pour(file: BinaryIO, writer: ObjectWriter) -> None:
    with file:
        while data := file.read(_COPY_BYTES):
            writer.write(data)


def _is_bucket_id(bucket: str) -> bool:
    """Whether there could be such a bucket."""
    try:
        check_bucket_id(bucket)
    except InvalidArgument:
        return False
    return True


def _advice(bucket: str, *, forwards: bool) -> str:
    ways = [
        f"create it (gsutil mb gs://{bucket})",
        f"map it to a directory (setting bucket_mappings, such as {bucket}=file:///PATH)",
    ]
    if not forwards:
        ways.append('have it read from the real service (setting unknown_buckets = "forward")')
    return f"You can {', '.join(ways[:-1])} or {ways[-1]}."
