"""The `multipart/related` body of an upload: one part of JSON, one of content, read as a stream.

Python's own parsers want the whole body, and none takes what gcloud and gsutil send: the boundary in single quotes
that are not part of the delimiter, and lines that end in a bare LF. Which line ending a body uses is told by its
first line; exactly one of them before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from enginehouse.api.storage.call import MAX_JSON_BYTES, parse_json_object
from enginehouse.core.errors import InvalidArgument

_BOUNDARY = re.compile(r"""boundary\s*=\s*("(?P<double>[^"]+)"|(?P<bare>[^;]+))""", re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"^content-type\s*:\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_MAX_HEAD_BYTES = MAX_JSON_BYTES + 16 * 1024


@dataclass(frozen=True)
class Head:
    """What comes before the content."""

    resource: dict[str, Any]
    """The JSON part."""
    content_type: str | None
    """Of the content, if its part says so."""
    terminator: bytes
    """What ends the content."""


class RelatedBody:
    """A body that is being read: `head` first, then `content` to its end."""

    def __init__(self, content_type: str, stream: AsyncIterator[bytes]) -> None:
        """
        Args:
            content_type: the request's header.
            stream: the request's body.

        Raises:
            InvalidArgument: the header names no boundary.
        """
        self._boundaries = _boundaries(content_type)
        self._stream = stream
        self._buffer = b""
        self._terminator = b""

    async def head(self) -> Head:
        """Read up to the first byte of the content.

        Raises:
            InvalidArgument: the body is no such thing.
        """
        async for part in self._stream:
            self._buffer += part
            parsed = parse_head(self._buffer, self._boundaries)
            if parsed is not None:
                head, size_bytes = parsed
                self._buffer = self._buffer[size_bytes:]
                self._terminator = head.terminator
                return head
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise InvalidArgument("The multipart body has no second part where one should be.")
        raise InvalidArgument("The multipart body ends before its second part.")

    async def content(self) -> AsyncIterator[bytes]:
        """The content's bytes, and nothing of what follows.

        Raises:
            InvalidArgument: the body ends without the closing delimiter: something was cut off.
        """
        buffer, self._buffer = self._buffer, b""
        keep = len(self._terminator) - 1
        while True:
            at = buffer.find(self._terminator)
            if at >= 0:
                yield buffer[:at]
                async for _ in self._stream:  # the epilogue
                    pass
                return
            if len(buffer) > keep:
                yield buffer[: len(buffer) - keep]
                buffer = buffer[len(buffer) - keep :]
            part = await anext(self._stream, None)
            if part is None:
                raise InvalidArgument("The multipart body ends without its closing delimiter.")
            buffer += part


def parse_head(buffer: bytes, boundaries: list[bytes]) -> tuple[Head, int] | None:
    """Parse what has come so far.

    Args:
        buffer: the beginning of the body.
        boundaries: the boundary in each way that the header can be read.

    Returns:
        The head and its size in bytes, or None when more must come.

    Raises:
        InvalidArgument: it can't become one.
    """
    start = len(buffer) - len(buffer.lstrip(b"\r\n"))
    line_end = buffer.find(b"\n", start)
    if line_end < 0:
        return None
    line = buffer[start:line_end]
    eol = b"\r\n" if line.endswith(b"\r") else b"\n"
    boundary = next((b for b in boundaries if line.rstrip() == b"--" + b), None)
    if boundary is None:
        raise InvalidArgument("The multipart body does not begin with its boundary.")
    delimiter = eol + b"--" + boundary
    # A part without headers begins with the empty line, so each search starts at the line end before it.
    json_start = buffer.find(eol * 2, line_end + 1 - len(eol))
    json_end = buffer.find(delimiter, json_start + len(eol)) if json_start >= 0 else -1
    headers_start = buffer.find(eol, json_end + len(delimiter)) if json_end >= 0 else -1
    headers_end = buffer.find(eol * 2, headers_start) if headers_start >= 0 else -1
    if headers_end < 0:
        return None
    resource = parse_json_object(buffer[json_start + 2 * len(eol) : json_end])
    found = _CONTENT_TYPE.search(buffer[headers_start:headers_end])
    content_type = found.group(1).decode("latin-1") if found else None
    return Head(resource, content_type, delimiter + b"--"), headers_end + 2 * len(eol)


def _boundaries(content_type: str) -> list[bytes]:
    match = _BOUNDARY.search(content_type)
    if not match:
        raise InvalidArgument("The upload's Content-Type must be multipart/related with a boundary.")
    text = match["double"] or match["bare"].strip()
    readings = [text]
    if len(text) > 2 and text[0] == text[-1] == "'":
        readings.append(text[1:-1])
    return [reading.encode("latin-1") for reading in readings]
