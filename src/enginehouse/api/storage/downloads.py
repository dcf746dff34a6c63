"""Content on its way out: whole or by range.

Small contents that are in memory are answered at once, without a thread. Large ones are sent by the kernel, or where
they pass through the gateway's TLS streamed in blocks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import BinaryIO

from starlette.responses import Response, StreamingResponse

from enginehouse.api.sendfile import SENDFILE, FileResponse, is_plain_file, read_cached
from enginehouse.api.storage.call import Call
from enginehouse.api.storage.errors import plain_error
from enginehouse.api.storage.kept import KEEP
from enginehouse.core.errors import ConditionNotMet
from enginehouse.storage.base import NO_PRECONDITIONS, ObjectInfo, Preconditions
from enginehouse.storage.resource import etag

BLOCK_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})")


@dataclass(frozen=True)
class Slice:
    """Bytes `start` to `stop`, exclusive, of an object; `partial` when a range was asked for."""

    start: int
    stop: int
    partial: bool


async def download(call: Call) -> Response:
    """GET …/o/X?alt=media"""
    preconditions = call.preconditions()
    bucket, name, generation = call.path["bucket"], call.path["object"], call.integer("generation")
    opened = (
        call.store.open_at_once(bucket, name, generation=generation) if preconditions == NO_PRECONDITIONS else None
    )
    at_once = opened is not None
    if opened is None:
        try:
            opened = await call.run(
                call.store.open_read, bucket, name, generation=generation, preconditions=preconditions
            )
        except ConditionNotMet as error:
            return not_modified(preconditions, error)
    info, file = opened
    try:
        wanted = parse_range(call.request.headers.get("range"), info.size_bytes)
        if wanted is None:
            file.close()
            return _no_such_range(info)
        response = await _content(call, file, wanted)
    except BaseException:
        file.close()
        raise
    # Written as bytes: Starlette would encode a value as Latin-1 and add a charset to some content types.
    response.raw_headers = [(name.encode(), value.encode()) for name, value in _headers(info, wanted).items()]
    keep = call.request.scope.get("extensions", {}).get(KEEP)
    if keep is not None and at_once and type(response) is Response:
        keep(response)
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


async def _content(call: Call, file: BinaryIO, wanted: Slice) -> Response:
    """The answer with the bytes that are wanted; it, or this function, closes the file."""
    status = HTTPStatus.PARTIAL_CONTENT if wanted.partial else HTTPStatus.OK
    length = wanted.stop - wanted.start
    if call.request.method == "HEAD" or not length:
        file.close()
        return Response(b"", status)
    if length > SMALL_BYTES:
        if is_plain_file(file) and SENDFILE in call.request.scope.get("extensions", ()):
            return FileResponse(file, wanted.start, length, status)
        return StreamingResponse(_blocks(call, file, wanted), status)
    data = read_cached(file, wanted.start, length)
    if data is None:
        data = await call.run(_read, file, wanted.start, length)
    file.close()
    return Response(data, status)


def _no_such_range(info: ObjectInfo) -> Response:
    response = plain_error(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        "requestedRangeNotSatisfiable",
        f"The object has {info.size_bytes} bytes; none of them is in the requested range.",
    )
    response.headers["Content-Range"] = f"bytes */{info.size_bytes}"
    return response


def _read(file: BinaryIO, offset: int, size_bytes: int) -> bytes:
    file.seek(offset)
    data = file.read(size_bytes)
    while len(data) < size_bytes and (more := file.read(size_bytes - len(data))):  # a file without a buffer may do so
        data += more
    return data


async def _blocks(call: Call, file: BinaryIO, wanted: Slice) -> AsyncIterator[bytes]:
    try:
        for start in range(wanted.start, wanted.stop, BLOCK_BYTES):
            block = await call.run(_read, file, start, min(BLOCK_BYTES, wanted.stop - start))
            if not block:
                return
            yield block
    finally:
        file.close()


def _headers(info: ObjectInfo, wanted: Slice) -> dict[str, str]:
    headers = {
        "content-type": info.content_type,
        "content-length": str(wanted.stop - wanted.start),
        "accept-ranges": "bytes",
        "cache-control": info.cache_control or "private, max-age=0",
        "etag": f'"{etag(info.generation, info.metageneration)}"',
        "last-modified": _http_date(info.updated_ns // 1_000_000_000),
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


@functools.lru_cache(maxsize=1024)
def _http_date(time_s: int) -> str:
    return formatdate(time_s, usegmt=True)
