"""What the contract tests share: names, small writes and reads, and the plainest listing there can be."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import google_crc32c
import pytest

from enginehouse.storage.base import (
    ObjectAttributes,
    ObjectInfo,
    ObjectStore,
    Preconditions,
)

BUCKET = "test-bucket"
MUST_NOT_EXIST = Preconditions(if_generation_match=0)
HOSTILE_NAMES = (
    "a",
    "a/b",
    "a/b/",
    "../../etc/passwd",
    "..a",
    "/absolute",
    "//",
    ".hidden/../x",
    "%2F%252F",
    "space and + and &=?#",
    "tab\there",
    "back\\slash",
    "ünï/日本語/🦆",
    "'; DROP TABLE objects; --",
    "_%_%",
    "\U0010ffff",
    "x" * 1024,
    "é" * 512,
)
REFUSED_NAMES = ("", ".", "..", "a\nb", "a\rb", "a\0b", "x" * 1025, "é" * 513, "\ud800")


def md5_of(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc32c_of(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def put(
    store: ObjectStore,
    name: str,
    data: bytes = b"",
    *,
    bucket: str = BUCKET,
    attributes: ObjectAttributes | None = None,
    preconditions: Preconditions | None = None,
) -> ObjectInfo:
    """Write a small object."""
    writer = store.writer(bucket, name, attributes=attributes, preconditions=preconditions or Preconditions())
    writer.write(data)
    return writer.commit()


def read(store: ObjectStore, name: str, *, bucket: str = BUCKET) -> bytes:
    """The whole content of an object."""
    _, file = store.open_read(bucket, name)
    with file:
        return file.read()


def list_all(store: ObjectStore, *, bucket: str = BUCKET, max_results: int = 1000, **query: Any) -> list[str]:
    """All object names of a listing, over its pages, in the order in which they were told."""
    names: list[str] = []
    token = ""
    while True:
        page = store.list(bucket, page_token=token, max_results=max_results, **query)
        names += [info.name for info in page.objects]
        token = page.next_page_token
        if not token:
            return names


def list_entries(
    store: ObjectStore, *, bucket: str = BUCKET, max_results: int = 1000, **query: Any
) -> tuple[list[str], list[str], list[int]]:
    """Names, prefixes and the sizes of the pages of a listing."""
    names: list[str] = []
    prefixes: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        page = store.list(bucket, page_token=token, max_results=max_results, **query)
        names += [info.name for info in page.objects]
        prefixes += page.prefixes
        sizes.append(len(page.objects) + len(page.prefixes))
        token = page.next_page_token
        if not token:
            return names, prefixes, sizes


def naive_listing(
    names: Sequence[str],
    *,
    prefix: str = "",
    delimiter: str = "",
    start_offset: str = "",
    end_offset: str = "",
    include_trailing_delimiter: bool = False,
) -> tuple[list[str], list[str]]:
    """What a listing must tell, in the plainest way: look at every name."""
    objects: list[str] = []
    prefixes: set[str] = set()
    for name in names:
        raw = name.encode()
        if not name.startswith(prefix) or raw < start_offset.encode():
            continue
        if end_offset and raw >= end_offset.encode():
            continue
        if delimiter and delimiter in name[len(prefix) :]:
            common = prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter
            prefixes.add(common)
            if include_trailing_delimiter and name == common:
                objects.append(name)
        else:
            objects.append(name)
    return sorted(objects, key=str.encode), sorted(prefixes, key=str.encode)


class StoreFixtures:
    """The store under test, with one empty bucket."""

    @pytest.fixture
    def open_store(self) -> Callable[[], ObjectStore]:
        """Opens the store under test; each call opens the same content again."""
        raise NotImplementedError("subclasses give the store under test")

    @pytest.fixture
    def store(self, open_store: Callable[[], ObjectStore]) -> Iterator[ObjectStore]:
        store = open_store()
        store.create_bucket(BUCKET)
        yield store
        store.close()
