"""What the engine has ready is answered without its application, and only that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from enginehouse.testing.gateway import GatewayThread, echo_app, read_response

HOST = "storage.googleapis.com"


@dataclass
class Ready:
    body: bytes = b"ready"
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"content-length", b"5")])


@pytest.fixture
def gateway(serve: Callable[..., GatewayThread]) -> GatewayThread:
    def at_once(scope: Any) -> Ready | None:
        return Ready() if scope["method"] == "GET" and scope["path"] == "/ready" else None

    return serve(echo_app, at_once=at_once)


def test_answers_come_in_order(gateway: GatewayThread) -> None:
    with gateway.connect_through(HOST) as connection:
        paths = ["ready", "other", "ready", "ready", "other"]
        connection.sendall(b"".join(f"GET /{path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for path in paths))
        answers = [read_response(connection) for _ in paths]
    assert [(status, body == b"ready") for status, _, body in answers] == [(200, path == "ready") for path in paths]
    assert "date" in {name.lower() for name in answers[0][1]}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /ready HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /ready HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /ready HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n",
        b"GET /ready HTTP/1.0\r\nHost: %b\r\n\r\n",
        b"PUT /ready HTTP/1.1\r\nHost: %b\r\n\r\n",
    ],
)
def test_what_is_not_ordinary_goes_the_long_way(gateway: GatewayThread, request_bytes: bytes) -> None:
    with gateway.connect_through(HOST) as connection:
        connection.sendall(request_bytes % HOST.encode())
        status, _, body = read_response(connection)
    assert (status, body != b"ready") == (200, True)
