"""A file's bytes to a client: from memory at once, or from the disk to the socket by the kernel alone (sendfile).

`protocol` offers it to applications in `scope["extensions"]` under `SENDFILE`; `FileResponse` takes the offer.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SENDFILE = "enginehouse.sendfile"
"""A function `(file, offset, size_bytes)` that sends a part of the body whose head has been sent."""

Sendfile = Callable[[BinaryIO, int, int], Awaitable[None]]
_ONE_CALL_BYTES = 64 * 1024 * 1024
"""For how much a thread is kept by one client that reads as fast as it is sent to."""
_POLL_S = 0.001


class FileResponse(Response):
    """An answer whose body is a part of a file, which it closes.

    Args:
        file: a plain file of the operating system.
        offset: where the part begins.
        size_bytes: its length, which must be the content-length of `headers`.
    """

    def __init__(
        self, file: BinaryIO, offset: int, size_bytes: int, status_code: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(None, status_code, headers)
        self._file = file
        self._offset = offset
        self._size_bytes = size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file as file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await scope["extensions"][SENDFILE](file, self._offset, self._size_bytes)
            await send({"type": "http.response.body", "body": b""})


def is_plain_file(file: BinaryIO) -> bool:
    """Whether a file is the operating system's own, and not something that reads like one."""
    return isinstance(getattr(file, "raw", file), io.FileIO)


def read_cached(file: BinaryIO, offset: int, size_bytes: int) -> bytes | None:
    """A part of a file without waiting for a disk; None if not all of it is in memory."""
    if not is_plain_file(file):
        return None
    buffer = bytearray(size_bytes)
    try:
        got = os.preadv(file.fileno(), [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # it would wait, or the file system can't tell
        return None
    return bytes(buffer) if got == size_bytes else None


async def send_file(transport: asyncio.Transport, file: BinaryIO, offset: int, size_bytes: int) -> None:
    """Send a part of a file behind all that the transport was given before. Nobody else may write meanwhile.

    Raises:
        OSError: the client is gone, or the file is shorter.
    """
    pause_s = 0.0  # the head leaves as soon as the loop gets its turn
    while transport.get_write_buffer_size() and not transport.is_closing():
        await asyncio.sleep(pause_s)
        pause_s = _POLL_S
    if transport.is_closing():
        raise ConnectionResetError("the client is gone")
    loop = asyncio.get_running_loop()
    # Of its own, so that the number stays this connection's for as long as a thread may use it.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    try:
        end = offset + size_bytes
        while offset < end:
            stop = min(end, offset + _ONE_CALL_BYTES)
            pushing = loop.run_in_executor(None, _push, connection, file.fileno(), offset, stop)
            try:
                offset = await asyncio.shield(pushing)
            except asyncio.CancelledError:
                await asyncio.wait([pushing])  # its descriptors are closed next
                raise
            if offset < stop:
                await _writable(loop, connection)
    finally:
        os.close(connection)


def _push(connection: int, file: int, offset: int, stop: int) -> int:
    """Send until the client takes no more for now; where it stopped."""
    while offset < stop:
        try:
            sent = os.sendfile(connection, file, offset, stop - offset)
        except BlockingIOError:
            break
        if not sent:
            raise OSError("the file ends before its size")
        offset += sent
    return offset


async def _writable(loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
