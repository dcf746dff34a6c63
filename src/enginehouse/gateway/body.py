"""The body of an HTTP/1.1 request, taken out of its framing piece by piece."""

from __future__ import annotations

import asyncio
import re
from enum import Enum, auto

from enginehouse.gateway.errors import BadRequest, HeadTooLarge, RequestTimeout
from enginehouse.gateway.head import find_head_end, parse_header_lines
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream

_MAX_SIZE_LINE_BYTES = 1024
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedDecoder:
    """Takes the chunked coding (RFC 9112 §7.1) off, without any I/O. Time is linear in what is fed.

    Unlike headers, chunks must end their lines with CRLF: no client is known to do otherwise.

    Attributes:
        rest: once done, the bytes that came after the body.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._pending = bytearray()  # an unfinished line, or the trailers so far
        self._left_bytes = 0  # of the chunk
        self.rest = b""

    @property
    def done(self) -> bool:
        return self._state is _State.DONE

    def feed(self, data: bytes) -> bytes:
        """The content in `data`, which may be none.

        Raises:
            BadRequest: it is not chunked.
            HeadTooLarge: the trailers are.
        """
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and self._state is not _State.DONE:
            if self._state is _State.DATA:
                piece = data[at : at + self._left_bytes]
                pieces.append(piece)
                at += len(piece)
                self._left_bytes -= len(piece)
                if not self._left_bytes:
                    self._state = _State.DATA_END
            elif self._state is _State.TRAILERS:
                at = self._take_trailers(data, at)
            else:
                at = self._take_line(data, at)
        if self._state is _State.DONE:
            self.rest += data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_line(self, data: bytes, at: int) -> int:
        """Read on in the line of a chunk's size, or the empty one behind its data."""
        end = data.find(b"\n", at) + 1
        self._pending += data[at : end or len(data)]
        if self._state is _State.DATA_END and not b"\r\n".startswith(self._pending):
            raise BadRequest("A chunk of the body does not end where its size says.")
        if len(self._pending) > _MAX_SIZE_LINE_BYTES:
            raise BadRequest("The size of a chunk of the body has no end.")
        if not end:
            return len(data)
        line = bytes(self._pending)
        self._pending.clear()
        if self._state is _State.DATA_END:
            self._state = _State.SIZE
            return end
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadRequest("The size of a chunk of the body is not a hexadecimal number.")
        self._left_bytes = int(match[1], 16)
        self._state = _State.DATA if self._left_bytes else _State.TRAILERS
        if self._state is _State.TRAILERS:
            self._pending += b"\r\n"  # so that no trailers look like an empty block
        return end

    def _take_trailers(self, data: bytes, at: int) -> int:
        """Read on to the end of the trailers, which are checked and dropped."""
        searched = len(self._pending)
        self._pending += data[at:]
        end = find_head_end(self._pending, searched)
        if max(end, 0) > self._limits.head_bytes or (end < 0 and len(self._pending) > self._limits.head_bytes):
            raise HeadTooLarge("The trailers of the body are too large.")
        if end < 0:
            return len(data)
        parse_header_lines(bytes(self._pending[2:end]), self._limits)
        taken = end - searched
        self._pending.clear()
        self._state = _State.DONE
        return at + taken


class Body:
    """The body of the request whose head was read last from a stream. One task reads it, to its end.

    Args:
        content_length: its size in bytes, None when it is chunked.
    """

    def __init__(self, stream: Stream, content_length: int | None, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._left_bytes = content_length
        self._decoder = ChunkedDecoder(limits) if content_length is None else None

    @property
    def complete(self) -> bool:
        """Whether all of it was read."""
        return self._decoder.done if self._decoder is not None else self._left_bytes == 0

    @property
    def left_bytes(self) -> int | None:
        """How much is still to come, None when that is not known."""
        return self._left_bytes

    async def read(self) -> bytes:
        """The next piece; `b""` after the last.

        Raises:
            BadRequest: it is framed wrongly, or the client stopped in the middle.
            RequestTimeout: nothing comes.
        """
        while not self.complete:
            data = await self._next_chunk()
            if self._decoder is None:
                assert self._left_bytes is not None
                piece = data if len(data) <= self._left_bytes else data[: self._left_bytes]
                self._left_bytes -= len(piece)
                self._stream.unread(data[len(piece) :])
            else:
                piece = self._decoder.feed(data)
                if self._decoder.done:
                    self._stream.unread(self._decoder.rest)
            if piece:
                return piece
        return b""

    async def _next_chunk(self) -> bytes:
        if self._stream.has_data:
            return await self._stream.read()
        try:
            async with asyncio.timeout(self._limits.body_idle_s):
                data = await self._stream.read()
        except TimeoutError:
            raise RequestTimeout("The rest of the request's body did not come.") from None
        if not data:
            raise BadRequest("The connection ended before the request's body did.")
        return data
