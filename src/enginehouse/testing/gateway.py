"""A gateway in a thread of its own, in front of any ASGI application, for tests that speak to it over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from enginehouse.gateway.connection import AtOnce, nothing_at_once
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.proxy import GatewayServer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

TIMEOUT_S = 30.0
T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class GatewayThread:
    """A `GatewayServer` that runs while the `with` block does.

    Args:
        app: answers for our hosts.
        ca_dir: as for `GatewayServer`.
        environ: as for `GatewayServer`; empty, so that no proxy of the test machine is used.
        limits: as for `GatewayServer`.
        loop_factory: makes the event loop; asyncio's own if None.
        token, at_once: as for `GatewayServer`.
    """

    def __init__(
        self,
        app: ASGIApp,
        ca_dir: Path,
        *,
        environ: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        loop_factory: LoopFactory | None = None,
        token: str = "",
        at_once: AtOnce = nothing_at_once,
    ) -> None:
        self.server = GatewayServer(
            app, at_once=at_once, ca_dir=ca_dir, environ=environ or {}, limits=limits, token=token
        )
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bundle(self) -> Path:
        return self.server.bundle_path

    def __enter__(self) -> GatewayThread:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def connect(self, timeout_s: float = TIMEOUT_S) -> socket.socket:
        """A TCP connection to the gateway."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def connect_through(self, host: str, port: int = 443) -> socket.socket:
        """A connection through CONNECT to one of our hosts, in TLS when the port is 443."""
        raw = self.connect()
        raw.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = read_until(raw, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        if port != 443:
            return raw
        context = ssl.create_default_context(cafile=str(self.server.authority.certificate_path))
        return context.wrap_socket(raw, server_hostname=host)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            try:
                runner.run(self._serve())
            except BaseException as error:
                self._failure = error
                self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await self.server.start()
        self._started.set()
        await self._stop.wait()
        await self.server.close(drain_s=1.0)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Receive until `end` has come, or the connection has ended; byte by byte, so that nothing behind it is taken."""
    data = bytearray()
    while not data.endswith(end):
        chunk = connection.recv(1)
        if not chunk:
            break
        data += chunk
    return bytes(data)


def read_all(connection: socket.socket) -> bytes:
    """Receive to the end of the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 20):
            data += chunk
    return data


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer with a Content-Length or a chunked body: status, headers, body."""
    head = read_until(connection, b"\r\n\r\n")
    body = bytearray()
    lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        while size := int(read_until(connection, b"\r\n"), 16):
            body += _receive(connection, size + 2)[:-2]
        assert _receive(connection, 2) == b"\r\n"
    else:
        body += _receive(connection, int(headers.get("content-length", "0")))
    return int(lines[0].split()[1]), headers, bytes(body)


def _receive(connection: socket.socket, size_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < size_bytes:
        chunk = connection.recv(min(size_bytes - len(data), 1 << 20))
        assert chunk, f"the answer ends after {len(data)} of {size_bytes} bytes"
        data += chunk
    return bytes(data)


async def echo_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that tells what request it got, as JSON: the body by its size and hash."""
    digest, size = hashlib.sha256(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        size += len(message["body"])
        if not message["more_body"]:
            break
    told = {
        "method": scope["method"],
        "scheme": scope["scheme"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "server": list(scope["server"]),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": size,
        "sha256": digest.hexdigest(),
    }
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
