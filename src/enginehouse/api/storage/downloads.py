"""Content on its way out: whole or by range, streamed from the file in blocks."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from enginehouse.api.storage.call import Call
from enginehouse.api.storage.errors import plain_error
from enginehouse.api.storage.resources import etag
from enginehouse.core.errors import ConditionNotMet
from enginehouse.storage.base import ObjectInfo, Preconditions

BLOCK_BYTES = 1024 * 1024
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})")


@dataclass(frozen=True)
class Slice:
    """Bytes `start` to `stop`, exclusive, of an object; `partial` when a range was asked for."""

    start: int
    stop: int
    partial: bool


@dataclass(frozen=True)
class _Opened:
    """An object with the first block of what was asked; `file` gives the rest, if there is one."""

    info: ObjectInfo
    wanted: Slice | None
    head: bytes
    file: BinaryIO | None


async def download(call: Call) -> Response:
    """GET …/o/X?alt=media"""
    preconditions = call.preconditions()
    try:
        opened = await call.run(_open, call, call.integer("generation"), preconditions)
    except ConditionNotMet as error:
        return not_modified(preconditions, error)
    info, wanted = opened.info, opened.wanted
    if wanted is None:
        response = plain_error(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "requestedRangeNotSatisfiable",
            f"The object has {info.size_bytes} bytes; none of them is in the requested range.",
        )
        response.headers["Content-Range"] = f"bytes */{info.size_bytes}"
        return response
    status = HTTPStatus.PARTIAL_CONTENT if wanted.partial else HTTPStatus.OK
    if opened.file is None:
        response = Response(opened.head, status)
    else:
        response = StreamingResponse(_blocks(opened, opened.file), status)
    # Written as bytes: Starlette would encode a value as Latin-1 and add a charset to some content types.
    response.raw_headers = [(name.encode(), value.encode()) for name, value in _headers(info, wanted).items()]
    return response


def parse_range(header: str | None, size_bytes: int) -> Slice | None:
    """What a Range header asks of an object of this size.

    Args:
        header: as sent; None, or a form that isn't one range of bytes, asks for everything (RFC 9110 §14.2).
        size_bytes: of the object.

    Returns:
        The slice, or None when no byte of the object is in the range (to be answered with 416).
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match or match.groups() == ("", ""):
        return Slice(0, size_bytes, partial=False)
    first, last = match.groups()
    if not first:
        start, stop = max(size_bytes - int(last), 0), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return Slice(0, size_bytes, partial=False)
    return Slice(start, stop, partial=True) if start < stop else None


def not_modified(preconditions: Preconditions, error: ConditionNotMet) -> Response:
    """The answer to a read whose condition does not hold: 304 if it was of the "not match" kind alone.

    Raises:
        ConditionNotMet: it was of the other kind, which is answered with 412.
    """
    if preconditions.if_generation_match is None and preconditions.if_metageneration_match is None:
        return Response(status_code=HTTPStatus.NOT_MODIFIED)
    raise error


def _open(call: Call, generation: int | None, preconditions: Preconditions) -> _Opened:
    info, file = call.store.open_read(
        call.path["bucket"], call.path["object"], generation=generation, preconditions=preconditions
    )
    try:
        wanted = parse_range(call.request.headers.get("range"), info.size_bytes)
        if wanted is None or call.request.method == "HEAD":
            file.close()
            return _Opened(info, wanted, b"", None)
        file.seek(wanted.start)
        length = wanted.stop - wanted.start
        head = file.read(min(BLOCK_BYTES, length))
        if len(head) == length:
            file.close()
            return _Opened(info, wanted, head, None)
        return _Opened(info, wanted, head, file)
    except BaseException:
        file.close()
        raise


async def _blocks(opened: _Opened, file: BinaryIO) -> AsyncIterator[bytes]:
    assert opened.wanted is not None
    left = opened.wanted.stop - opened.wanted.start
    try:
        block = opened.head
        while block:
            yield block
            left -= len(block)
            block = await run_in_threadpool(file.read, min(BLOCK_BYTES, left)) if left else b""
    finally:
        file.close()


def _headers(info: ObjectInfo, wanted: Slice) -> dict[str, str]:
    headers = {
        "content-type": info.content_type,
        "content-length": str(wanted.stop - wanted.start),
        "accept-ranges": "bytes",
        "cache-control": info.cache_control or "private, max-age=0",
        "etag": f'"{etag(info.generation, info.metageneration)}"',
        "last-modified": formatdate(info.updated_ns / 1e9, usegmt=True),
        "x-goog-generation": str(info.generation),
        "x-goog-metageneration": str(info.metageneration),
        "x-goog-storage-class": info.storage_class,
        "x-goog-stored-content-encoding": info.content_encoding or "identity",
        "x-goog-stored-content-length": str(info.size_bytes),
    }
    hashes = ",".join(f"{name}={value}" for name, value in (("crc32c", info.crc32c), ("md5", info.md5)) if value)
    optional = {
        "x-goog-hash": hashes,
        "content-encoding": info.content_encoding,
        "content-disposition": info.content_disposition,
        "content-language": info.content_language,
    }
    headers |= {name: value for name, value in optional.items() if value}
    if wanted.partial:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{info.size_bytes}"
    return headers
