"""The contract of an object store: what every implementation does, whatever it is made of.

Comes in: bucket and object names, bytes, preconditions. Goes out: `ObjectInfo` and open files. Called by
`api/storage` (for clients), `jobs`, `registry` and `batch` (for themselves). `testing.storage.ObjectStoreContract`
holds the same rules as tests.

Rules that hold for every method:

* **Thread safety.** Every method may be called from any thread at any time. A writer or an open file belongs to one
  thread at a time.
* **Atomicity.** A write, copy, compose, move or update is seen whole or not at all, and its preconditions are judged
  in the same step. A kill at any line leaves the old state or the new one.
* **Generations.** Every new content of an object gets a generation that is greater than every generation the store
  gave before, deleted objects included. Content never changes under a generation: who has a file open reads that
  generation to its end, even after the object was overwritten or deleted. Only the newest generation is kept.
* **Order.** Names are compared as the bytes of their UTF-8.
* **Names.** Any object name that `core.names.check_object_name` lets pass can be stored, beside any other
  (`a` and `a/b`, `..` inside a name, 1024 bytes).
* **Checksums.** `md5` and `crc32c` are standard base64 of the digest (crc32c big-endian), as in Cloud Storage.
* **Errors** are of `core.errors`: `InvalidArgument` (bad name or value), `NotFound`, `AlreadyExists`, `NotEmpty`,
  `ConditionNotMet`.

The semantics follow the Cloud Storage JSON API (https://cloud.google.com/storage/docs/json_api/v1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from enginehouse.core.errors import ConditionNotMet

DEFAULT_CONTENT_TYPE = "application/octet-stream"
MAX_COMPOSE_SOURCES = 32
"""Cloud Storage's limit for one compose request."""


@dataclass(frozen=True, kw_only=True)
class ObjectAttributes:
    """What a user may say of an object beside its content; changing it keeps the generation."""

    content_type: str = DEFAULT_CONTENT_TYPE
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    """Kept and told, never acted upon: the stored bytes are the bytes that were sent."""
    content_language: str | None = None
    custom_time: str | None = None
    """RFC 3339."""
    storage_class: str = "STANDARD"
    metadata: Mapping[str, str] = field(default_factory=dict)


AttributeChange = Callable[[ObjectAttributes], ObjectAttributes]


@dataclass(frozen=True, kw_only=True)
class ObjectInfo(ObjectAttributes):
    """One generation of an object, without its content."""

    bucket: str
    name: str
    size_bytes: int
    md5: str
    """Empty, as `crc32c`, where a bucket that lies elsewhere does not tell it."""
    crc32c: str
    generation: int
    """Microseconds since the epoch at the commit, made strictly growing."""
    metageneration: int = 1
    """1 for new content, one more after each change of the attributes."""
    component_count: int | None = None
    """How many uploads a composed object is made of; None for one that was uploaded."""
    created_ns: int
    updated_ns: int

    @property
    def attributes(self) -> ObjectAttributes:
        """The user's part alone, to give to another object."""
        return ObjectAttributes(**{f.name: getattr(self, f.name) for f in fields(ObjectAttributes)})


@dataclass(frozen=True, kw_only=True)
class BucketInfo:
    """One bucket."""

    name: str
    project: str = ""
    """Who made it; empty when the client named no project."""
    location: str = "US"
    storage_class: str = "STANDARD"
    labels: Mapping[str, str] = field(default_factory=dict)
    metageneration: int = 1
    created_ns: int
    updated_ns: int


@dataclass(frozen=True)
class ListPage:
    """A part of a listing; `objects` and `prefixes` are each in order."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str]
    """Names cut off after the first delimiter behind the asked prefix, each once in the whole listing."""
    next_page_token: str
    """Opaque, URL-safe; empty on the last page."""


@dataclass(frozen=True)
class TextPage:
    """A part of a listing without a delimiter, each object as the JSON of its resource (see `resource`)."""

    objects: Sequence[bytes]
    """With `resource.BASE_URL` for scheme and host of their links."""
    next_page_token: str


@dataclass(frozen=True)
class Preconditions:
    """What must hold of the present object (or bucket) for a request to be done; None asks nothing."""

    if_generation_match: int | None = None
    """0 says: there must be no such object."""
    if_generation_not_match: int | None = None
    if_metageneration_match: int | None = None
    if_metageneration_not_match: int | None = None

    def check(self, present: ObjectInfo | BucketInfo | None) -> None:
        """Judge them against what is there now; what is not there has generation and metageneration 0.

        Raises:
            ConditionNotMet: naming the first condition that does not hold.
        """
        generation = present.generation if isinstance(present, ObjectInfo) else 0
        metageneration = present.metageneration if present is not None else 0
        for name, wanted, found, equal in (
            ("ifGenerationMatch", self.if_generation_match, generation, True),
            ("ifGenerationNotMatch", self.if_generation_not_match, generation, False),
            ("ifMetagenerationMatch", self.if_metageneration_match, metageneration, True),
            ("ifMetagenerationNotMatch", self.if_metageneration_not_match, metageneration, False),
        ):
            if wanted is not None and (wanted == found) is not equal:
                raise ConditionNotMet(
                    f"At least one of the pre-conditions you specified did not hold: {name}={wanted}, found {found}."
                )


NO_PRECONDITIONS = Preconditions()


@dataclass(frozen=True)
class Digests:
    """Checksums that a client says its content has; None says nothing."""

    md5: str | None = None
    crc32c: str | None = None


NO_DIGESTS = Digests()


@dataclass(frozen=True)
class ComposeSource:
    """One part of a composed object."""

    name: str
    generation: int | None = None
    """The generation that must be the newest; None takes whatever is there."""


@dataclass(frozen=True)
class UploadStatus:
    """Where a resumable upload stands."""

    upload_id: str
    bucket: str
    name: str
    offset: int
    """Bytes stored so far: what is on the disk, nothing else."""
    size_bytes: int | None
    """The size that the client announced when it began."""
    result: ObjectInfo | None
    """The object as it was made, once the upload is finished."""


class ObjectWriter(Protocol):
    """Content on its way into a store. Nothing is seen of it before `commit`.

    As a context manager it commits at the end of the block and aborts when the block raises.
    """

    def write(self, data: bytes) -> None:
        """Add bytes at the end."""
        ...

    def commit(self, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        """Make the object, judging the preconditions that the writer was made with. Once only.

        Raises:
            InvalidArgument: the content has other checksums than `expected`.
            ConditionNotMet: somebody was faster.
            NotFound: the bucket is gone.
            Aborted: the writer was aborted or committed before.
        """
        ...

    def abort(self) -> None:
        """Forget the content; harmless after `commit` or `abort`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ObjectStore(Protocol):
    """Buckets and objects; the rules are at the top of this module."""

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
        """Make a bucket; AlreadyExists when there is one of that name, whoever made it."""
        ...

    def get_bucket(self, name: str, *, preconditions: Preconditions = NO_PRECONDITIONS) -> BucketInfo:
        """The bucket; NotFound when there is none."""
        ...

    def list_buckets(self, *, project: str = "", prefix: str = "") -> Sequence[BucketInfo]:
        """Buckets by name: those of `project` and those that nobody's project owns; all, if `project` is empty."""
        ...

    def update_bucket(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> BucketInfo:
        """Replace what is given, and count the metageneration up."""
        ...

    def delete_bucket(self, name: str, *, preconditions: Preconditions = NO_PRECONDITIONS) -> None:
        """Delete a bucket; NotEmpty while it holds an object."""
        ...

    # Objects

    def get(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        """The newest generation; NotFound when there is none, or when it is not the asked `generation`."""
        ...

    def open_read(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> tuple[ObjectInfo, BinaryIO]:
        """As `get`, with that generation's content open for reading and seeking. The caller closes it."""
        ...

    def open_at_once(
        self, bucket: str, name: str, *, generation: int | None = None
    ) -> tuple[ObjectInfo, BinaryIO] | None:
        """`open_read` for a caller that must not wait, such as an event loop.

        Returns:
            None wherever that would need waiting or `open_read` would raise: then ask `open_read`.
        """
        ...

    def change_mark(self) -> int | None:
        """A number that is another one after any change of what `open_at_once` can give, whoever made it.

        Returns:
            None where it can't be told without waiting.
        """
        ...

    def writer(
        self,
        bucket: str,
        name: str,
        *,
        attributes: ObjectAttributes | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectWriter:
        """Begin new content. Bucket and preconditions are judged here, to fail early, and again at the commit."""
        ...

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
        """List objects by name.

        Args:
            bucket: which bucket.
            prefix: only names that begin so.
            delimiter: names that hold it behind `prefix` are told only as `prefixes`.
            start_offset: only names at or after it.
            end_offset: only names before it; empty sets no end.
            include_trailing_delimiter: an object whose name is one of the prefixes is told in both lists.
            page_token: `next_page_token` of the page before, with all else equal.
            max_results: objects and prefixes together on a page, at least 1. An object with its own prefix (see
                above) stays on one page, which then can have one entry more.
        """
        ...

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
        """`list` without a delimiter, as text that is ready to be sent.

        Returns:
            None where the store has no such text or no such bucket: then ask `list`.
        """
        ...

    def update(
        self,
        bucket: str,
        name: str,
        change: AttributeChange,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        """Change the attributes and count the metageneration up. `change` may be called more than once."""
        ...

    def delete(
        self,
        bucket: str,
        name: str,
        *,
        generation: int | None = None,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> None:
        """Delete the object; NotFound as in `get`."""
        ...

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
        """Copy an object; onto itself is allowed and makes a new generation.

        Args:
            source_bucket: bucket to copy from.
            source_name: object to copy.
            bucket: bucket to copy into.
            name: the new object.
            change: makes the new attributes from the source's; None keeps them.
            source_generation: the source must be this generation.
            source_preconditions: judged against the source.
            preconditions: judged against what is at the destination.
        """
        ...

    def move(
        self,
        bucket: str,
        source_name: str,
        name: str,
        *,
        source_preconditions: Preconditions = NO_PRECONDITIONS,
        preconditions: Preconditions = NO_PRECONDITIONS,
    ) -> ObjectInfo:
        """Rename within a bucket in one step; the object gets a new generation."""
        ...

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
        """Join objects of one bucket, 1 to 32, in the given order; the result may be one of them.

        With `delete_sources`, the sources vanish in the step that makes the result.
        """
        ...

    # Resumable uploads: the state is the store's, so they survive a restart of the engine.

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
        """Begin an upload that may come in many pieces over many days; see `writer` for the judging."""
        ...

    def get_upload(self, upload_id: str) -> UploadStatus:
        """Where it stands; NotFound when it was never begun, was cancelled, failed or is too old."""
        ...

    def append_upload(self, upload_id: str, offset: int, data: bytes) -> int:
        """Add bytes that belong at `offset`; what is stored already is skipped, so a piece may be sent again.

        Returns:
            The new size of what is stored.

        Raises:
            OutOfRange: `offset` lies behind the end of what is stored, or the upload is finished.
        """
        ...

    def finish_upload(self, upload_id: str, *, size_bytes: int, expected: Digests = NO_DIGESTS) -> ObjectInfo:
        """Make the object from all that was appended. Idempotent.

        A wrong checksum or an unmet precondition ends the upload, as no further byte could cure it.

        Raises:
            OutOfRange: not exactly `size_bytes` are stored, or another size was announced at the begin.
            InvalidArgument, ConditionNotMet, NotFound: as `ObjectWriter.commit`.
        """
        ...

    def cancel_upload(self, upload_id: str) -> None:
        """Forget it; NotFound as in `get_upload`."""
        ...

    # The short way to the local disk

    def export(self, bucket: str, prefix: str, directory: Path, *, link: bool = True) -> Sequence[ObjectInfo]:
        """Put all objects below the folder `prefix` into `directory`, under their names behind it.

        Args:
            bucket: which bucket.
            prefix: folder in the bucket, with or without the slash at its end; empty for the whole bucket.
            directory: where to put them; made if need be. Everything else in it stays.
            link: hard links where the store can, which costs nothing but ties the files to the objects' content:
                only for a directory in which nobody changes files. False always copies.

        Returns:
            The objects that were put there, by name; names that end with "/" became directories.

        Raises:
            InvalidArgument: a name would leave the directory or is no path ("..", "//", longer than the file system
                takes), or two names exclude each other ("a" and "a/b"). Nothing is put there then.
        """
        ...

    def local_path(self, bucket: str, name: str) -> Path | None:
        """The content as a file to be read, valid until the object is overwritten or deleted; None if the store
        has no such file."""
        ...

    def close(self) -> None:
        """Let go of everything; no call may follow."""
        ...
