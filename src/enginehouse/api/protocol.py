"""What one HTTP client may cost before it has said what it wants, and files as answers.

uvicorn bounds neither the size of a request's head nor the time it may take, and knows no way for a file to its
client but through memory. `BoundedProtocol` adds these; `lendable`, which the composition root gives to uvicorn, is
built on it.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, BinaryIO, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from enginehouse.api.sendfile import SENDFILE, send_file

MAX_HEAD_BYTES = 128 * 1024
"""Request line and headers together; names of 1,024 bytes, percent-encoded, fit many times."""
HEAD_TIMEOUT_S = 30.0
"""For a whole head, from its first byte; and for the first byte on a new connection."""
_MAX_HELD_BYTES = 64 * 1024


class OneWrite:
    """A transport for answers, which keeps their heads until the loop's next turn: most bodies are there by then.

    uvicorn writes head and body each for itself, and the client would be woken twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if not self._held and len(data) <= _MAX_HELD_BYTES:
            self._held = data
            self._loop.call_soon(self.flush)
        elif self._held:
            held, self._held = self._held, b""
            if len(data) <= _MAX_HELD_BYTES:
                self._transport.write(held + data)
            else:
                self._transport.writelines((held, data))
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is kept."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed when the head of a request is too large (400) or too slow."""

    max_head_bytes = MAX_HEAD_BYTES
    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._answers: OneWrite

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = OneWrite(transport, self.loop)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # a header that has not ended is not told by the parser, but kept
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    # Parser callbacks: an exception in one is answered with 400.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(b": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._clear_deadline()
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = cast(asyncio.Transport, self._answers)
            extensions = cast(dict[str, Any], self.scope.setdefault("extensions", {}))
            extensions[SENDFILE] = functools.partial(self._send_file, self.cycle)

    async def _send_file(self, cycle: RequestResponseCycle, file: BinaryIO, offset: int, size_bytes: int) -> None:
        if cycle.disconnected or cycle.scope["method"] == "HEAD":
            return
        try:
            self._answers.flush()
            await send_file(self.transport, file, offset, size_bytes)
        except OSError:  # a broken-off answer must not look whole
            self.transport.abort()
        else:
            cycle.expected_content_length -= size_bytes

    def send_400_response(self, msg: str) -> None:
        self._answers.flush()
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        self._answers.flush()
        super().on_response_complete()

    def _await_head(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self._clear_deadline()
        self._deadline = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > self.max_head_bytes:
            raise ValueError("The request's head is too large.")
