"""What passes through to other hosts: tunnels, and single requests of plain HTTP."""

from __future__ import annotations

import asyncio

from enginehouse.core.errors import EngineError
from enginehouse.gateway.body import Body
from enginehouse.gateway.errors import BadGateway, GatewayTimeout
from enginehouse.gateway.head import RequestHead
from enginehouse.gateway.http1 import CONNECTION_HEADERS, Origin
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream
from enginehouse.gateway.upstream import Outgoing, Upstream


async def tunnel(client: Stream, origin: Stream, limits: Limits) -> None:
    """Carry bytes both ways, untouched, until both sides have ended; a side that ended may still be sent to.

    Closes the origin's connection, and leaves the client's to the caller.
    """

    async def carry(source: Stream, sink: Stream) -> None:
        while data := await source.read():
            sink.write(data)
            await sink.drain(limits.send_stall_s)
        if source.lost:  # gone altogether: the other way has nobody to carry to
            raise ConnectionResetError("the peer is gone")
        sink.write_eof()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(client, origin))
            group.create_task(carry(origin, client))
    except* OSError:
        pass
    finally:
        await origin.close(limits.close_s)


async def forward(
    client: Stream,
    head: RequestHead,
    origin: Origin,
    path_and_query: str,
    upstream: Upstream,
    via: bytes,
    limits: Limits,
) -> bool:
    """Pass one request on, and the answer back as it comes.

    The request is framed anew. Its connection to the origin is used once, so the answer's end is the connection's,
    and the client's connection must be closed behind it.

    Returns:
        Whether all of the request was read; if not, the client may still be sending.

    Raises:
        BadGateway, GatewayTimeout: nothing was answered yet.
        BadRequest, RequestTimeout: so too, and the request's body is to blame.
    """
    outgoing = await upstream.open_request(origin.scheme, origin.host, origin.port, via)
    try:
        outgoing.stream.write(_request(head, origin, path_and_query, outgoing, via))
        if head.expects_continue:
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        answer = _Answer(outgoing.stream, client, origin, limits)
        sending = asyncio.create_task(_send_body(client, head, outgoing.stream, limits))
        relaying = asyncio.create_task(answer.relay(sending))
        try:
            await asyncio.wait({sending, relaying}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not answer.began and isinstance(error := sending.exception(), EngineError):
                raise error
            await relaying
            return _done_well(sending)
        finally:
            sending.cancel()
            relaying.cancel()
            await asyncio.gather(sending, relaying, return_exceptions=True)
    finally:
        await outgoing.stream.close(limits.close_s)


def _request(head: RequestHead, origin: Origin, path_and_query: str, outgoing: Outgoing, via: bytes) -> bytes:
    dropped = CONNECTION_HEADERS | {b"host", b"content-length", *head.tokens(b"connection")}
    target = path_and_query if outgoing.proxy is None else f"{origin.scheme}://{origin.authority}{path_and_query}"
    lines = [f"{head.method} {target} HTTP/1.1".encode(), b"host: " + origin.authority.encode()]
    lines += [name + b": " + value for name, value in head.headers if name not in dropped]
    if head.content_length is None:
        lines.append(b"transfer-encoding: chunked")
    elif head.content_length or any(head.values(b"content-length")):
        lines.append(b"content-length: %d" % head.content_length)
    if outgoing.proxy is not None and outgoing.proxy.authorization:
        lines.append(b"proxy-authorization: " + outgoing.proxy.authorization)
    return b"\r\n".join([*lines, b"via: " + via, b"connection: close", b"", b""])


async def _send_body(client: Stream, head: RequestHead, origin: Stream, limits: Limits) -> None:
    body = Body(client, head.content_length, limits)
    chunked = head.content_length is None
    while data := await body.read():
        origin.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        await origin.drain(limits.send_stall_s)
    if chunked:
        origin.write(b"0\r\n\r\n")


class _Answer:
    """An origin's answer on its way to the client; `began` once something of it was passed on."""

    def __init__(self, source: Stream, client: Stream, origin: Origin, limits: Limits) -> None:
        self.began = False
        self._source = source
        self._client = client
        self._origin = origin
        self._limits = limits

    async def relay(self, sending: asyncio.Task[None]) -> None:
        """Pass it on to its end; time counts only when the request is `sending` no longer."""
        while True:
            try:
                async with asyncio.timeout(self._limits.forward_idle_s):
                    data = await self._source.read()
            except TimeoutError:
                if not sending.done():
                    continue
                if not self.began:
                    raise GatewayTimeout(f"{self._origin.authority} does not answer.") from None
                self._client.abort()  # or half an answer would look whole
                return
            if not data:
                # A reset, which is an answer broken off unless it was for what the origin did not want to read.
                if self._source.lost and not self._source.secure and _done_well(sending):
                    self._client.abort()
                break
            self.began = True
            self._client.write(data)
            await self._client.drain(self._limits.send_stall_s)
        if not self.began:
            raise BadGateway(f"{self._origin.authority} closed the connection without an answer.")


def _done_well(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
