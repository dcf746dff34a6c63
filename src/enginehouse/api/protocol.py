"""What one HTTP client may cost before it has said what it wants, large bodies, and files as answers.

uvicorn bounds neither the size of a request's head nor the time it may take, copies each small piece of a body five
times, and knows no way for a file to its client but through memory. `BoundedProtocol` amends these; `lendable`, which
the composition root gives to uvicorn, is built on it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from typing import Any, BinaryIO, cast

import httptools
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from enginehouse.api.sendfile import SENDFILE, send_file

MAX_HEAD_BYTES = 128 * 1024
"""Request line and headers together; names of 1,024 bytes, percent-encoded, fit many times."""
HEAD_TIMEOUT_S = 30.0
"""For a whole head, from its first byte; and for the first byte on a new connection."""
LARGE_BODY_BYTES = 256 * 1024
"""Bodies from this size on are read from the socket in pieces of up to `_PIECE_BYTES`."""
_PIECE_BYTES = 1024 * 1024
_MAX_HELD_BYTES = 64 * 1024


_LONG_WAY = frozenset(
    {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"}
)
"""Headers of bodies, and of those who come by a proxy of their own, which uvicorn looks at on the long way."""


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
    """A connection that is closed when the head of a request is too large (400) or too slow.

    What the parser has not seen of a large body when the application asks for it goes past the parser, and a new one
    reads the next request.
    """

    max_head_bytes = MAX_HEAD_BYTES
    head_timeout_s = HEAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._answers: OneWrite
        self._unparsed_bytes = 0  # of a large body
        self._past_parser: socket.socket | None = None  # the way of what the parser has not seen
        self._drop_bytes = 0  # of a body that nobody wants, before the next request
        self._answered = False  # the request that is being parsed, at once

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = OneWrite(transport, self.loop)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._close_past_parser()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._drop_bytes:
            dropped = min(self._drop_bytes, len(data))
            self._drop_bytes -= dropped
            data = data[dropped:]
            if not data:
                return
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
        self._answered = b"alt=media" in self.url and self._answer_at_once()
        if self._answered:
            return
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = cast(asyncio.Transport, self._answers)
            extensions = cast(dict[str, Any], self.scope.setdefault("extensions", {}))
            extensions[SENDFILE] = functools.partial(self._send_file, self.cycle)
            length = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
            if length >= LARGE_BODY_BYTES:
                self._unparsed_bytes = length
                self.cycle.receive = functools.partial(self._receive, self.cycle)  # type: ignore[method-assign]

    def at_once(self, scope: Scope) -> Response | None:
        """The whole answer (200, with its length) to a GET request without a body, where none needs to be waited for.

        Args:
            scope: without what an application alone needs.
        """
        return None

    def _answer_at_once(self) -> bool:
        """Without a task, the application's layers, and checks of headers that were made here."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.get_write_buffer_size() or self.transport.is_closing():
            return False
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return False
        if not _LONG_WAY.isdisjoint(name for name, _ in self.headers):
            return False
        url = httptools.parse_url(self.url)
        scope = cast(dict[str, Any], self.scope)
        scope.update(method=self.parser.get_method().decode(), raw_path=url.path, query_string=url.query or b"")
        answer = self.at_once(scope)
        if answer is None:
            return False
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *answer.raw_headers)]
        self.transport.write(b"".join((b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n", answer.body)))
        return True

    def on_message_complete(self) -> None:
        if not self._answered:
            super().on_message_complete()
            return
        self._answered = False
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = max(self._unparsed_bytes - len(body), 0)
        super().on_body(body)

    async def _receive(self, cycle: RequestResponseCycle) -> Any:
        """The ASGI `receive` of a request with a large body."""
        if cycle is not self.cycle or not self._unparsed_bytes or cycle.disconnected or cycle.response_complete:
            return await RequestResponseCycle.receive(cycle)
        self.flow.pause_reading()
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, cycle.body = bytes(cycle.body), bytearray()
        if not body:
            body = await self._read_past_parser()
        if not body:
            cycle.disconnected = True
            self.transport.abort()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": bool(self._unparsed_bytes)}

    async def _read_past_parser(self) -> bytes:
        """The next piece of the body; none if the client is gone."""
        try:
            if self._past_parser is None:  # uvloop lets nobody else wait for a transport's own descriptor
                descriptor = os.dup(self.transport.get_extra_info("socket").fileno())
                self._past_parser = socket.socket(fileno=descriptor)
            piece = await self.loop.sock_recv(self._past_parser, min(self._unparsed_bytes, _PIECE_BYTES))
        except OSError:
            return b""
        except BaseException:  # a piece may be lost: what follows is no request
            self.transport.abort()
            raise
        self._unparsed_bytes -= len(piece)
        if not self._unparsed_bytes:
            self._parse_anew()
            self.on_message_complete()
        return piece

    def _parse_anew(self) -> None:
        self._close_past_parser()
        self.parser = httptools.HttpRequestParser(self)

    def _close_past_parser(self) -> None:
        if self._past_parser is not None:
            self._past_parser.close()
            self._past_parser = None

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
        if self._past_parser is not None:  # the application did not want all of the body
            self._drop_bytes, self._unparsed_bytes = self._unparsed_bytes, 0
            self._parse_anew()
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
