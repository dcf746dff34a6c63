"""Content on its way in: media, multipart and resumable uploads, streamed to the store in blocks.

Source: https://cloud.google.com/storage/docs/json_api/v1/how-tos/upload and …/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from enginehouse.api.storage.call import Call, parse_int64
from enginehouse.api.storage.multipart import RelatedBody
from enginehouse.api.storage.resources import digests, merged_attributes
from enginehouse.core.errors import InvalidArgument, OutOfRange
from enginehouse.storage.base import Digests, ObjectAttributes, ObjectInfo, ObjectWriter
from enginehouse.storage.resource import object_resource

BLOCK_BYTES = 1024 * 1024
"""Bytes that are hashed and written in one go in the thread pool."""
_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_RESUME_INCOMPLETE = 308
_CANCELLED = 499


async def insert(call: Call) -> Response:
    """POST /upload/storage/v1/b/B/o?uploadType=media|multipart|resumable; gcsfs also sends pieces by POST."""
    if "upload_id" in call.query:
        return await resume(call)
    kind = call.query.get("uploadType")
    if kind == "media":
        return await _insert_media(call)
    if kind == "multipart":
        return await _insert_multipart(call)
    if kind == "resumable":
        return await _begin_resumable(call)
    raise InvalidArgument(f"uploadType must be media, multipart or resumable, not {kind!r}.", field="uploadType")


async def resume(call: Call) -> Response:
    """PUT <session>: bytes of a resumable upload, or with `Content-Range: bytes */N` the question how far it is."""
    upload_id = call.required("upload_id")
    sent = ContentRange.parse(call.request.headers.get("content-range"))
    status = await call.run(call.store.get_upload, upload_id)
    if status.result is not None:  # the answer to the last piece got lost
        return _resource(call, status.result)
    offset, total = status.offset, sent.total
    if not sent.is_question:
        try:
            offset = await _append(call, upload_id, sent)
        except OutOfRange:  # bytes are missing before these; the client learns where to go on
            return _incomplete((await call.run(call.store.get_upload, upload_id)).offset)
        if sent.is_whole:
            total = offset
    if total is None or offset != total:
        return _incomplete(offset)
    info = await call.run(call.store.finish_upload, upload_id, size_bytes=total, expected=_header_digests(call))
    return _resource(call, info)


async def cancel(call: Call) -> Response:
    """DELETE <session>; Cloud Storage answers with this odd status."""
    await call.run(call.store.cancel_upload, call.required("upload_id"))
    return Response(status_code=_CANCELLED)


@dataclass(frozen=True)
class ContentRange:
    """The Content-Range header of a PUT: bytes `first` to `last`, both counted in, of `total`."""

    first: int | None
    last: int | None
    total: int | None
    is_whole: bool = False
    """No header: the body is the whole object."""

    @property
    def is_question(self) -> bool:
        """Whether the request has no bytes and asks how far the upload is."""
        return self.first is None

    @classmethod
    def parse(cls, header: str | None) -> ContentRange:
        """Take the header apart.

        Raises:
            InvalidArgument: it is none of `bytes A-B/N`, `bytes A-B/*`, `bytes */N`, `bytes */*`.
        """
        if header is None:
            return cls(0, None, None, is_whole=True)
        match = _CONTENT_RANGE.fullmatch(header.strip())
        if not match:
            raise InvalidArgument(f"Invalid Content-Range: {header!r}", field="Content-Range")
        first, last, total = (None if text in (None, "*") else int(text) for text in match.groups())
        if first is not None and last is not None and not first <= last < (last + 1 if total is None else total):
            raise InvalidArgument(f"Invalid Content-Range: {header!r}", field="Content-Range")
        return cls(first, last, total)


async def _insert_media(call: Call) -> Response:
    attributes = merged_attributes(_base_attributes(call), _given_type(call.request.headers.get("content-type")))
    info = await _store(call, call.required("name"), attributes, call.request.stream(), _header_digests(call))
    return _resource(call, info)


async def _insert_multipart(call: Call) -> Response:
    body = RelatedBody(call.request.headers.get("content-type", ""), call.request.stream())
    head = await body.head()
    attributes = merged_attributes(_base_attributes(call), _given_type(head.content_type) | head.resource)
    expected = _combined(digests(head.resource), _header_digests(call))
    info = await _store(call, _name(call, head.resource), attributes, body.content(), expected)
    return _resource(call, info)


async def _begin_resumable(call: Call) -> Response:
    headers = call.request.headers
    resource = await call.json()
    size = headers.get("x-upload-content-length")
    status = await call.run(
        call.store.create_upload,
        call.path["bucket"],
        _name(call, resource),
        attributes=merged_attributes(
            _base_attributes(call), _given_type(headers.get("x-upload-content-type")) | resource
        ),
        preconditions=call.preconditions(),
        expected=_combined(digests(resource), _header_digests(call)),
        size_bytes=None if size is None else parse_int64(size, "X-Upload-Content-Length"),
    )
    path, name = quote(call.request.scope["path"]), quote(status.name, safe="")
    location = f"{call.base_url}{path}?uploadType=resumable&name={name}&upload_id={status.upload_id}"
    return Response(headers={"Location": location, "X-GUploader-UploadID": status.upload_id})


async def _append(call: Call, upload_id: str, sent: ContentRange) -> int:
    """Store the body's bytes, and return how many bytes there are now."""
    position = stored = sent.first or 0

    def append(block: bytes) -> None:
        nonlocal position, stored
        if sent.last is not None and position + len(block) > sent.last + 1:
            raise InvalidArgument("The body is longer than its Content-Range says.", field="Content-Range")
        stored = call.store.append_upload(upload_id, position, block)
        position += len(block)

    await _pour(in_blocks(call.request.stream()), append)
    if sent.last is not None and position != sent.last + 1:
        raise InvalidArgument("The body is shorter than its Content-Range says.", field="Content-Range")
    return max(position, stored)


async def _store(
    call: Call, name: str, attributes: ObjectAttributes, content: AsyncIterator[bytes], expected: Digests
) -> ObjectInfo:
    blocks = in_blocks(content)
    first = await anext(blocks, b"")
    begin = functools.partial(
        call.store.writer, call.path["bucket"], name, attributes=attributes, preconditions=call.preconditions()
    )
    if len(first) < BLOCK_BYTES:  # all of it
        return await call.run(_put, begin, first, expected)
    writer = await call.run(begin)
    try:
        await call.run(writer.write, first)
        await _pour(blocks, writer.write)
        return await call.run(writer.commit, expected)
    except BaseException:
        writer.abort()
        raise


async def _pour(blocks: AsyncIterator[bytes], write: Callable[[bytes], None]) -> None:
    """Have each block written in a thread while the next one comes."""
    writing: asyncio.Future[None] | None = None
    try:
        async for block in blocks:
            if writing is not None:
                await writing
            writing = asyncio.ensure_future(Call.run(write, block))
        if writing is not None:
            await writing
    finally:
        if writing is not None:  # whoever waits no more must not meet it at the writer
            await asyncio.wait([writing])


def _put(begin: Callable[[], ObjectWriter], content: bytes, expected: Digests) -> ObjectInfo:
    with begin() as writer:
        writer.write(content)
        return writer.commit(expected)


async def in_blocks(stream: AsyncIterator[bytes], size_bytes: int = BLOCK_BYTES) -> AsyncIterator[bytes]:
    """The stream in parts of at least `size_bytes` but for the last, so that a thread's call is worth its cost."""
    parts: list[bytes] = []
    gathered = 0
    async for part in stream:
        parts.append(part)
        gathered += len(part)
        if gathered >= size_bytes:
            yield b"".join(parts)
            parts.clear()
            gathered = 0
    if gathered:
        yield b"".join(parts)


def _incomplete(offset: int) -> Response:
    headers = {"Range": f"bytes=0-{offset - 1}"} if offset else {}
    return Response(status_code=_RESUME_INCOMPLETE, headers=headers)


def _name(call: Call, resource: dict[str, Any]) -> str:
    name = call.query.get("name") or resource.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidArgument("Required parameter: name", field="name")
    return name


def _base_attributes(call: Call) -> ObjectAttributes:
    return merged_attributes(ObjectAttributes(), {"contentEncoding": call.query.get("contentEncoding")})


def _given_type(content_type: str | None) -> dict[str, Any]:
    return {"contentType": content_type} if content_type else {}


def _header_digests(call: Call) -> Digests:
    """The checksums of the headers `X-Goog-Hash: crc32c=…,md5=…` and `Content-MD5`."""
    pairs = (
        item.strip().partition("=")
        for value in call.request.headers.getlist("x-goog-hash")
        for item in value.split(",")
    )
    told = {name.lower(): value for name, _, value in pairs}
    return Digests(md5=told.get("md5") or call.request.headers.get("content-md5"), crc32c=told.get("crc32c"))


def _combined(first: Digests, second: Digests) -> Digests:
    return Digests(first.md5 or second.md5, first.crc32c or second.crc32c)


def _resource(call: Call, info: ObjectInfo) -> Response:
    return call.reply(object_resource(info, call.base_url))
