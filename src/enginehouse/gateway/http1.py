"""The normaliser: HTTP/1.1 as real clients send it, into calls of an ASGI application.

Comes in: a `Stream` whose next bytes are a request. Goes out: the application's answer on the same stream. `proxy`
calls `read_head` and `Exchange.run` in turn, so requests of a connection are answered one after the other, pipelined
ones too. Bodies pass through in both directions as they come; a slow reader stops the writer (back-pressure).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from enginehouse.core.errors import EngineError, Internal
from enginehouse.gateway.body import Body
from enginehouse.gateway.errors import BadRequest, HeadTooLarge, RequestTimeout
from enginehouse.gateway.head import Header, RequestHead, find_head_end, parse_head
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope

_log = logging.getLogger(__name__)

_REASONS = {int(status): status.phrase for status in HTTPStatus}
_ONE_WRITE_BYTES = 64 * 1024
"""Up to this size the head and the first piece of the body leave in one write, else they are not worth copying."""
_HOLD_HEAD_S = 0.002
"""How long a head waits for the first piece of its body before it leaves alone."""
_LAST_CHUNK = b"0\r\n\r\n"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE = re.compile(rb"[\r\n\0]")
# What belongs to the connection, not to the message (RFC 9110 §7.6.1); the normaliser has dealt with it.
CONNECTION_HEADERS = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The server that a request is meant for."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The Host header: with the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


async def read_head(stream: Stream, limits: Limits) -> RequestHead | None:
    """Wait for the next request and read its head.

    Returns:
        The head, or None when the client has ended the connection or has been idle for too long.

    Raises:
        BadRequest, HeadTooLarge, VersionNotSupported: it is none; what follows it can't be understood.
        RequestTimeout: it did not come to its end in time.
    """
    try:
        async with asyncio.timeout(None if stream.has_data else limits.idle_s):
            data = await stream.read()
    except TimeoutError:
        return None
    buffer = bytearray(data.lstrip(b"\r\n"))  # RFC 9112 §2.2: empty lines before a request are ignored
    end = find_head_end(buffer)
    if end < 0:
        try:
            async with asyncio.timeout(limits.head_s):
                while end < 0:
                    if len(buffer) > limits.head_bytes:
                        break
                    data = await stream.read()
                    if not data:
                        if buffer:
                            raise BadRequest("The connection ended before the request's headers did.")
                        return None
                    searched = len(buffer)
                    buffer += data if searched else data.lstrip(b"\r\n")
                    end = find_head_end(buffer, searched)
        except TimeoutError:
            raise RequestTimeout(f"The request's headers did not come within {limits.head_s:g} seconds.") from None
    if end < 0 or end > limits.head_bytes:
        raise HeadTooLarge(f"The request's headers are larger than {limits.head_bytes} bytes.")
    stream.unread(bytes(buffer[end:]))
    return parse_head(bytes(buffer[:end]), limits)


def make_scope(head: RequestHead, origin: Origin, path_and_query: str, client: tuple[str, int], via: object) -> Scope:
    """The ASGI scope of a request.

    Args:
        path_and_query: of the target, beginning with a slash.
        via: stands in `extensions` under "enginehouse.gateway", to tell the application how the request came.
    """
    raw_path, _, query = path_and_query.partition("?")
    headers = [(b"host", origin.authority.encode())]
    chunked = head.content_length is None
    for name, value in head.headers:
        # A length that stands beside the chunked coding is a claim nobody has checked.
        if name not in CONNECTION_HEADERS and name != b"host" and not (chunked and name == b"content-length"):
            headers.append((name, value))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": head.version,
        "method": head.method,
        "scheme": origin.scheme,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": (origin.host, origin.port),
        "extensions": {"enginehouse.gateway": via},
        "state": {},
    }


def response_head(status: int, headers: Iterable[Header], *, close: bool) -> bytes:
    """Status line and headers, with the date and what becomes of the connection.

    Names are written `Like-This`: TensorFlow looks for `Location` and finds no `location`.
    """
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}".encode()]
    lines += [name.title() + b": " + value for name, value in headers]
    lines.append(b"Date: " + _http_date())
    if close:
        lines.append(b"Connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def error_response(error: EngineError, *, close: bool = True, headers: Iterable[Header] = ()) -> bytes:
    """A whole answer that tells an error in the API's shape."""
    body = json.dumps(error.to_http_body()).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    return response_head(error.http_status, fields, close=close) + body


class Exchange:
    """One request and its answer by the application.

    Args:
        stream: the connection.
        head: the request's.
        scope: from `make_scope`.

    Attributes:
        body_unread: after `run`, whether the client may still be sending its body.
    """

    def __init__(self, stream: Stream, head: RequestHead, scope: Scope, limits: Limits) -> None:
        self._stream = stream
        self._scope = scope
        self._limits = limits
        self._bodyless = head.method == "HEAD"
        self._http_1_0 = head.version == "1.0"
        self._close = not head.keep_alive
        self._body = Body(stream, head.content_length, limits)
        self._body_told = False
        self._failure: EngineError | None = None
        self._head: tuple[int, list[Header]] | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._sent = False  # the head
        self._finished = False
        self._chunked = False
        self._left_bytes: int | None = None  # of the answer, where its length was told
        if head.expects_continue:  # at once: curl, and so TensorFlow, waits a second for it
            stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def body_unread(self) -> bool:
        return not self._body.complete

    async def run(self, app: ASGIApp) -> bool:
        """Let the application answer.

        Returns:
            Whether the connection can take another request. If not, the caller closes it.
        """
        try:
            await app(self._scope, self._receive, self._send)
            if not self._finished and not self._stream.lost and self._failure is None:
                raise RuntimeError("the application returned without a whole answer")
        except Exception:
            if self._failure is None and not self._stream.lost:
                _log.exception("%s %s failed", self._scope["method"], self._scope["path"])
                self._failure = Internal("Internal error encountered; the engine's log tells more.")
        finally:
            if self._hold is not None:
                self._hold.cancel()
        if self._finished:
            return not self._close and await self._rest_of_body_read()
        if self._sent or self._stream.lost:  # a broken-off answer must not look whole
            self._stream.abort()
        elif self._failure is not None:
            self._stream.write(error_response(self._failure))
        return False

    async def _receive(self) -> Message:
        if not self._body_told and self._failure is None:
            try:
                data = await self._body.read()
            except EngineError as error:
                self._failure = error
                return {"type": "http.disconnect"}
            self._body_told = self._body.complete
            return {"type": "http.request", "body": data, "more_body": not self._body_told}
        if not self._finished and self._failure is None:
            await self._stream.wait_ended()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._failure is not None or self._stream.lost:
            raise OSError("the client is gone")  # ASGI 2.4
        kind = message["type"]
        if kind == "http.response.start" and self._head is None:
            self._head = (message["status"], _checked_headers(message.get("headers", ())))
            self._hold = asyncio.get_running_loop().call_later(_HOLD_HEAD_S, self._send_head)
        elif kind == "http.response.body" and self._head is not None and not self._finished:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} was not expected from the application now")

    def _send_head(self) -> None:
        if not self._sent and self._failure is None:
            self._sent = True
            self._stream.write(self._framed_head(None))

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        pieces: list[bytes] = []
        if not self._sent:
            pieces.append(self._framed_head(len(data) if not more else None))
        if self._bodyless:
            data = b""
        elif self._left_bytes is not None:
            self._left_bytes -= len(data)
            if self._left_bytes < 0 or (self._left_bytes and not more):
                raise RuntimeError("the application's answer is not as long as its Content-Length says")
        if data:
            pieces += [f"{len(data):x}\r\n".encode(), data, b"\r\n"] if self._chunked else [data]
        if not more and self._chunked:
            pieces.append(_LAST_CHUNK)
        self._sent = True
        self._finished = not more
        if len(data) <= _ONE_WRITE_BYTES:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self._stream.write(piece)
        if more:  # an application that never waits must let the loop see others, and that its client is gone
            await asyncio.sleep(0)
        await self._stream.drain(self._limits.send_stall_s)

    def _framed_head(self, whole_bytes: int | None) -> bytes:
        """The head of the answer, framed.

        Args:
            whole_bytes: the body's size where all of it is known, else None.
        """
        assert self._head is not None
        status, headers = self._head
        if not self._will_be_read():
            self._close = True
        kept = []
        for name, value in headers:
            if name == b"connection":
                self._close |= b"close" in value.lower()
            elif name == b"content-length":
                self._left_bytes = int(value)
            elif name not in CONNECTION_HEADERS and name != b"date":
                kept.append((name, value))
        if status in (204, 304):
            if status == 304 and self._left_bytes is not None:
                kept.append((b"content-length", str(self._left_bytes).encode()))
            self._bodyless = True
        else:
            if self._left_bytes is None and not self._bodyless:
                self._left_bytes = whole_bytes
            if self._left_bytes is not None:
                kept.append((b"content-length", str(self._left_bytes).encode()))
            elif not self._bodyless and not self._http_1_0:  # HTTP/1.0 reads to the end of the connection
                self._chunked = True
                kept.append((b"transfer-encoding", b"chunked"))
        return response_head(status, kept, close=self._close)

    def _will_be_read(self) -> bool:
        """Whether what is left of the request's body is little enough to be read for the sake of the connection."""
        left_bytes = self._body.left_bytes
        return self._body.complete or (left_bytes is not None and left_bytes <= self._limits.drain_body_bytes)

    async def _rest_of_body_read(self) -> bool:
        try:
            while await self._body.read():
                pass
        except EngineError:
            return False
        return True


async def linger(stream: Stream, limits: Limits) -> None:
    """Read and drop what a client still sends before its connection is closed.

    To close with unread bytes resets the connection, and the client might lose the answer it has not read yet.
    """
    stream.write_eof()
    try:
        async with asyncio.timeout(limits.linger_s):
            while await stream.read():
                pass
    except TimeoutError:
        pass


def _checked_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[Header]:
    """The application's headers in lower case.

    Raises:
        RuntimeError: one of them would break the answer into two.
    """
    checked = [(bytes(name).lower(), bytes(value)) for name, value in headers]
    for name, value in checked:
        numeric = name != b"content-length" or value.isdigit()
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value) or not numeric:
            raise RuntimeError(f"the application's header {name!r} is not valid")
    return checked


_date_cache: tuple[int, bytes] = (0, b"")


def _http_date() -> bytes:
    global _date_cache
    now_s = int(time.time())
    if _date_cache[0] != now_s:
        _date_cache = (now_s, formatdate(now_s, usegmt=True).encode())
    return _date_cache[1]
