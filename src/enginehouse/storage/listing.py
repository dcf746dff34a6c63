"""Listing by range scan: a common prefix costs one jump in the index, however many objects lie below it.

Comes in: a transaction (or another `Source`) and the arguments of `ObjectStore.list`. Goes out: a `ListPage`.
Called by `local` and `mounts`.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from enginehouse.core.errors import InvalidArgument
from enginehouse.storage.base import ListPage, ObjectInfo, TextPage
from enginehouse.storage.resource import ResourceTexts
from enginehouse.storage.rows import Rows, StoredObject

_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class Source(Protocol):
    """Where objects are listed from: `rows.Rows`, or whatever can tell its objects in order."""

    def objects_from(self, bucket: str, start: str, end: str | None) -> Generator[StoredObject]:
        """The objects with `start` <= name < `end`, by name; `end` None is the end of the bucket."""
        ...


@dataclass(frozen=True)
class Query:
    """The arguments of `ObjectStore.list` that stay the same from page to page."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    start_offset: str = ""
    end_offset: str = ""
    include_trailing_delimiter: bool = False


@dataclass(frozen=True)
class Entry:
    """One object, one prefix, or the object that has the name of its own prefix."""

    info: ObjectInfo | None
    prefix: str | None

    @property
    def start(self) -> str:
        """The name from which a listing would begin with this entry."""
        if self.prefix is not None:
            return self.prefix
        assert self.info is not None
        return self.info.name

    @property
    def weight(self) -> int:
        """How many results of a page it takes."""
        return (self.info is not None) + (self.prefix is not None)


def list_page(rows: Source, query: Query, page_token: str, max_results: int) -> ListPage:
    """One page; see `ObjectStore.list`.

    Raises:
        InvalidArgument: the token is none of ours, or `max_results` is less than 1.
    """
    start = _start(query, page_token, max_results)
    if not query.delimiter:
        return _flat_page(rows, query, start, max_results)
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    with contextlib.closing(_entries(rows, query, start)) as entries:
        for entry in entries:
            count = len(objects) + len(prefixes)
            if count and count + entry.weight > max_results:
                return ListPage(objects, prefixes, _encode_token(entry.start))
            if entry.info is not None:
                objects.append(entry.info)
            if entry.prefix is not None:
                prefixes.append(entry.prefix)
    return ListPage(objects, prefixes, "")


def text_page(rows: Rows, query: Query, texts: ResourceTexts, page_token: str, max_results: int) -> TextPage:
    """One page of a query without a delimiter; see `ObjectStore.list_texts`.

    Raises:
        InvalidArgument: as `list_page`.
    """
    start = _start(query, page_token, max_results)
    found = rows.versions_from(query.bucket, start, _end(query), max_results + 1)
    token = _encode_token(found.pop()[0]) if len(found) > max_results else ""
    known = texts.known([(generation, metageneration) for _name, generation, metageneration in found])
    if known is None:
        known = texts.of(_flat_page(rows, query, start, max_results).objects)
    return TextPage(known, token)


def name_after_prefix(prefix: str) -> str | None:
    """The smallest name greater than every name that begins with `prefix`; None when there is none.

    Code points sort as their UTF-8 does, so the last one is counted up; U+10FFFF carries over to the one before.
    """
    stem = prefix.rstrip(chr(_LAST_CODE_POINT))
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)


def _flat_page(rows: Source, query: Query, start: str, max_results: int) -> ListPage:
    """A page without prefixes, which are half of the work."""
    objects: list[ObjectInfo] = []
    with contextlib.closing(rows.objects_from(query.bucket, start, _end(query))) as found:
        for stored in found:
            if len(objects) == max_results:
                return ListPage(objects, [], _encode_token(stored.info.name))
            objects.append(stored.info)
    return ListPage(objects, [], "")


def _start(query: Query, page_token: str, max_results: int) -> str:
    if max_results < 1:
        raise InvalidArgument(f"maxResults must be at least 1, not {max_results}.", field="maxResults")
    return max(query.start_offset, query.prefix, _decode_token(page_token))


def _end(query: Query) -> str | None:
    """The first name behind all that is asked for; None for the end of the bucket."""
    end = name_after_prefix(query.prefix)
    if query.end_offset:
        return min(end, query.end_offset) if end is not None else query.end_offset
    return end


def _entries(rows: Source, query: Query, start: str) -> Generator[Entry]:
    end = _end(query)
    position: str | None = start
    while position is not None:
        begin, position = position, None
        with contextlib.closing(rows.objects_from(query.bucket, begin, end)) as objects:
            for stored in objects:
                info = stored.info
                prefix = _common_prefix(info.name, query)
                if prefix is None:
                    yield Entry(info, None)
                    continue
                own = query.include_trailing_delimiter and info.name == prefix
                yield Entry(info if own else None, prefix)
                position = name_after_prefix(prefix)
                break


def _common_prefix(name: str, query: Query) -> str | None:
    at = name.find(query.delimiter, len(query.prefix))
    return None if at < 0 else name[: at + len(query.delimiter)]


def _encode_token(start: str) -> str:
    return base64.urlsafe_b64encode(start.encode()).decode("ascii").rstrip("=")


def _decode_token(token: str) -> str:
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidArgument(f"{token!r} is no page token of this listing.", field="pageToken") from None
