"""The JSON resource of an object, `storage#object`, and its text kept for listings.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects#resource. Called by `api/storage` and `local`.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from enginehouse.core.units import format_time
from enginehouse.storage.base import ObjectInfo

BASE_URL = b"\x1f"
"""Stands in a kept text where a link has scheme and host; JSON has no such byte anywhere."""
Version = tuple[int, int]
"""Generation and metageneration, which no two objects of a store share, nor one object before and after a change."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.~/-]+")
_MAX_KEPT_BYTES = 16 * 1024 * 1024
TEXT_FIELDS = {
    "contentType": "content_type",
    "cacheControl": "cache_control",
    "contentDisposition": "content_disposition",
    "contentEncoding": "content_encoding",
    "contentLanguage": "content_language",
    "customTime": "custom_time",
    "storageClass": "storage_class",
}
"""What a client may say of an object, and the attribute that keeps it."""


def etag(generation: int, metageneration: int) -> str:
    """Changes with content and attributes; base64, as some clients decode it."""
    return binascii.b2a_base64((generation << 64 | metageneration).to_bytes(16, "big"), newline=False).decode("ascii")


def object_resource(info: ObjectInfo, base_url: str) -> dict[str, Any]:
    """`storage#object`; `mediaLink` is a URL that clients use as it is."""
    path = f"/storage/v1/b/{_encoded_bucket(info.bucket)}/o/{_encoded_name(info.name)}"
    created = format_time(info.created_ns, digits=3)
    resource: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{info.bucket}/{info.name}/{info.generation}",
        "selfLink": base_url + path,
        "mediaLink": f"{base_url}/download{path}?generation={info.generation}&alt=media",
        "name": info.name,
        "bucket": info.bucket,
        "generation": str(info.generation),
        "metageneration": str(info.metageneration),
        "size": str(info.size_bytes),
        "etag": etag(info.generation, info.metageneration),
        "timeCreated": created,
        "updated": created if info.updated_ns == info.created_ns else format_time(info.updated_ns, digits=3),
        "timeStorageClassUpdated": created,
    }
    if info.md5:
        resource["md5Hash"] = info.md5
    if info.crc32c:
        resource["crc32c"] = info.crc32c
    for field, attribute in TEXT_FIELDS.items():
        if (value := getattr(info, attribute)) is not None:
            resource[field] = value
    if info.component_count is not None:
        resource["componentCount"] = info.component_count
    if info.metadata:
        resource["metadata"] = info.metadata
    return resource


class ResourceTexts:
    """Texts of the resources that were listed last, with `BASE_URL` in their links. Safe from any thread.

    To put a resource together takes ten times as long as to find it again. When there are too many, all are dropped.
    """

    def __init__(self, max_bytes: int = _MAX_KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept_bytes = 0
        self._texts: dict[Version, bytes] = {}

    def known(self, versions: Sequence[Version]) -> list[bytes] | None:
        """The text of each; None unless all are there."""
        texts = [text for text in map(self._texts.get, versions) if text is not None]
        return texts if len(texts) == len(versions) else None

    def of(self, infos: Sequence[ObjectInfo]) -> list[bytes]:
        """The text of each, which is kept."""
        texts = [_text(info) for info in infos]
        size_bytes = sum(map(len, texts))
        if self._kept_bytes + size_bytes > self._max_bytes:
            self._texts, self._kept_bytes = {}, 0
        self._kept_bytes += size_bytes
        self._texts.update(zip(((info.generation, info.metageneration) for info in infos), texts, strict=True))
        return texts


def _text(info: ObjectInfo) -> bytes:
    text = orjson.dumps(object_resource(info, ""))
    for link in (b'"selfLink":"', b'"mediaLink":"'):  # unlike quotes in a value, these have no backslash before them
        text = text.replace(link, link + BASE_URL, 1)
    return text


def _encoded_name(name: str) -> str:
    # Most names need no more than this, which takes a fifth of the time.
    return name.replace("/", "%2F") if _PLAIN_NAME.fullmatch(name) else quote(name, safe="")


@functools.lru_cache
def _encoded_bucket(name: str) -> str:
    return quote(name, safe="")  # the same for all objects of a listing
