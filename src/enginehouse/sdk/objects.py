"""What the storage API tells of objects, and the checksums that every transfer is held against."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from enginehouse.core.errors import Aborted
from enginehouse.core.names import ObjectUri

READ_BYTES = 256 * 1024

OnBytes = Callable[[int], None]
"""Told how many bytes went over since the last call; negative when some have to go again. May raise to stop."""


def ignore_bytes(count: int) -> None:
    """An `OnBytes` for those who don't care."""


@dataclass(frozen=True)
class RemoteObject:
    """One object as the engine describes it."""

    uri: ObjectUri
    size_bytes: int
    md5: str | None
    """Base64; absent on composed objects."""
    crc32c: str
    generation: str
    content_type: str
    created: str
    updated: str
    metadata: Mapping[str, str]
    resource: Mapping[str, Any] = field(repr=False)
    """The whole resource."""

    @classmethod
    def from_resource(cls, told: Mapping[str, Any]) -> RemoteObject:
        return cls(
            uri=ObjectUri(str(told["bucket"]), str(told["name"])),
            size_bytes=int(told.get("size", 0)),
            md5=told.get("md5Hash"),
            crc32c=str(told.get("crc32c", "")),
            generation=str(told.get("generation", "")),
            content_type=str(told.get("contentType", "")),
            created=str(told.get("timeCreated", "")),
            updated=str(told.get("updated", "")),
            metadata=dict(told.get("metadata") or {}),
            resource=dict(told),
        )


@dataclass(frozen=True)
class Listing:
    """One level of a bucket: the objects in it and the prefixes (`folder/`) below it."""

    objects: list[RemoteObject]
    prefixes: list[str]


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Checksum:
    """The strongest checksum that an object carries, computed along a download."""

    def __init__(self, source: RemoteObject) -> None:
        self._source = source
        self._expected = source.md5 or source.crc32c
        self._hash: _Hash | None = None
        if source.md5:
            self._hash = hashlib.md5(usedforsecurity=False)
        elif source.crc32c:
            self._hash = _crc32c()

    def update(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)

    def verify(self, size_bytes: int) -> None:
        """Compare with the object.

        Raises:
            Aborted: what arrived is not what the engine stores.
        """
        got = _b64(self._hash.digest()) if self._hash is not None else self._expected
        if size_bytes != self._source.size_bytes or got != self._expected:
            raise Aborted(
                f"{self._source.uri} arrived damaged: its checksum is {self._expected}, of what came {got}."
            )


def _crc32c() -> _Hash:
    import google_crc32c

    checksum: _Hash = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
    return checksum


def verified(stored: RemoteObject, md5: bytes, size_bytes: int) -> RemoteObject:
    """`stored` itself if it is what was sent.

    Raises:
        Aborted: size or md5 differ.
    """
    if stored.size_bytes != size_bytes or (stored.md5 and stored.md5 != _b64(md5)):
        raise Aborted(
            f"{stored.uri} arrived damaged: {size_bytes} bytes with md5 {_b64(md5)} were sent, "
            f"{stored.size_bytes} bytes with md5 {stored.md5} are stored."
        )
    return stored


def file_md5(path: Path, *, on_bytes: OnBytes = ignore_bytes) -> str:
    """The md5 of a local file as the API writes it (base64)."""
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            md5.update(piece)
            on_bytes(len(piece))
    return _b64(md5.digest())


def guess_content_type(name: str) -> str:
    """The content type by the end of a name, `application/octet-stream` when it tells nothing."""
    import mimetypes

    return mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"


def _b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
