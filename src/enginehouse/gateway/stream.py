"""A connection's bytes both ways, with bounded buffers; TLS can be put on it later.

`asyncio.StreamReader` would do but for two things: it can't turn to TLS on the server's side in Python 3.11 without
losing its flow control, and it copies what passes through. This one hands on the chunks as they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast

_HIGH_WATER_BYTES = 512 * 1024
_LOW_WATER_BYTES = 128 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


class Stream(asyncio.Protocol):
    """One TCP connection.

    One task reads and one task writes at a time; both may be the same. Everything runs on the loop's thread.
    About `_HIGH_WATER_BYTES` are held for the reader at most, and as much again for the peer.

    Args:
        on_open: called with the stream when a server has accepted it; None for connections that we open.
    """

    def __init__(self, on_open: Callable[[Stream], None] | None = None) -> None:
        self._on_open = on_open
        self._transport: asyncio.Transport
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._reading_paused = False
        self._upgrading = False
        self._eof = False
        self._closed = asyncio.Event()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self.secure = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES, low=_LOW_WATER_BYTES)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # or a tunnel to a dead host stays for ever
        if self._on_open is not None:
            self._on_open(self)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held_bytes += len(data)
        self._readable.set()
        self._pause_if_full()

    def eof_received(self) -> bool:
        self._end()
        return not self.secure  # TLS has no half-closed state in asyncio

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._writable.set()
        self._end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What we call.

    @property
    def peer(self) -> tuple[str, int]:
        """Address and port of the other side."""
        name = self._transport.get_extra_info("peername")
        return (name[0], name[1]) if name else ("", 0)

    @property
    def has_data(self) -> bool:
        """Whether `read` would return at once with some bytes."""
        return bool(self._chunks)

    @property
    def ended(self) -> bool:
        """Whether the peer has ended its side; bytes may still be unread."""
        return self._eof

    @property
    def lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed.is_set() or self._transport.is_closing()

    async def wait_ended(self) -> None:
        """Return when the peer ends its side or vanishes."""
        await self._ended.wait()

    async def read(self) -> bytes:
        """The next bytes, as many as there are; `b""` after the last, whether the peer ended well or vanished."""
        while not self._chunks:
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._chunks.popleft()
        self._held_bytes -= len(data)
        if self._reading_paused and self._held_bytes <= _LOW_WATER_BYTES:
            self._reading_paused = False
            with contextlib.suppress(RuntimeError):  # uvloop's, of a transport that is closed by now
                self._transport.resume_reading()
        return data

    def unread(self, data: bytes) -> None:
        """Put back bytes that belong to the next reader."""
        if data:
            self._chunks.appendleft(data)
            self._held_bytes += len(data)
            self._readable.set()

    def write(self, data: bytes) -> None:
        """Send, buffering what the socket does not take; to a lost peer it does nothing."""
        if not self.lost:
            self._transport.write(data)

    async def drain(self, timeout_s: float) -> None:
        """Wait until there is room for more.

        Raises:
            ConnectionResetError: the peer is gone, or took nothing for `timeout_s`; then the connection is aborted.
        """
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._writable.wait()
            except TimeoutError:
                self.abort()
        if self.lost:
            raise ConnectionResetError("the peer is gone")

    def write_eof(self) -> None:
        """End our side and go on reading; TLS can only tell so by closing, so there it does nothing."""
        if not self.lost and self._transport.can_write_eof():
            with contextlib.suppress(OSError):  # asyncio's, of a peer that is gone already
                self._transport.write_eof()

    async def start_tls(
        self, context: ssl.SSLContext, *, timeout_s: float, server_hostname: str | None = None
    ) -> None:
        """Go on in TLS, as the client if `server_hostname` is given and else as the server.

        Raises:
            OSError: the handshake failed (`ssl.SSLError`), took too long or the peer left.
        """
        self.secure = self._upgrading = True
        loop = asyncio.get_running_loop()
        try:
            if self.lost:  # then asyncio would wait for ever
                raise ConnectionResetError("the peer left before the TLS handshake")
            transport: Any = await loop.start_tls(
                self._transport,
                self,
                context,
                server_side=server_hostname is None,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout_s,
            )
            if transport is None:  # asyncio's answer to a peer that left meanwhile
                raise ConnectionResetError("the peer left during the TLS handshake")
        except BaseException:
            self._transport.abort()
            self.connection_lost(None)  # which TLS calls only after a handshake
            raise
        self._upgrading = False
        self._transport = transport
        transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES, low=_LOW_WATER_BYTES)
        self._pause_if_full()

    def abort(self) -> None:
        """Reset the connection at once, with what is not sent yet, so that the peer can't take it for a good end."""
        if not self._closed.is_set():
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def close_soon(self) -> None:
        """Close when all is sent, and let whoever reads see the end at once."""
        self._transport.close()
        self._end()

    async def close(self, timeout_s: float) -> None:
        """Close when all is sent; after `timeout_s` without."""
        self._transport.close()
        if self._reading_paused:  # or a peer that ends its side would not be noticed
            self._reading_paused = False
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            self.abort()

    def _pause_if_full(self) -> None:
        # Not while TLS starts: the raw transport would be paused, and the one on top of it resumed.
        if self._held_bytes >= _HIGH_WATER_BYTES and not (self._reading_paused or self._upgrading or self.lost):
            self._reading_paused = True
            self._transport.pause_reading()

    def _end(self) -> None:
        self._eof = True
        self._readable.set()
        self._ended.set()
