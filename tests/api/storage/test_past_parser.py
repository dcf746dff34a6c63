"""Large bodies go past the parser; the next request of the connection is found behind them, whatever was read."""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from enginehouse.api.protocol import LARGE_BODY_BYTES, BoundedProtocol
from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving

LARGE = random.Random(2).randbytes(6 * 1024 * 1024 + 7)
UPLOAD = "/upload/storage/v1/b/{}/o?uploadType=media&name={}"
FDS = Path("/proc/self/fd")
BUCKET = "/storage/v1/b/bench"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalObjectStore]:
    store = LocalObjectStore(tmp_path_factory.mktemp("store"), SystemClock())
    store.create_bucket("bench")
    yield store
    store.close()


@pytest.fixture(scope="module")
def port(store: LocalObjectStore) -> Iterator[int]:
    with serving(storage_routes(store)) as url:
        yield int(url.rpartition(":")[2])


def content(store: LocalObjectStore, name: str) -> bytes:
    with store.open_read("bench", name)[1] as file:
        return file.read()


def head(path: str, size_bytes: int, *more: str, method: str = "POST") -> bytes:
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {size_bytes}", *more, "", ""]
    ).encode()


def statuses(client: socket.socket, count: int) -> list[int]:
    """Of the next answers, however they come."""
    received = b""
    while len(found := re.findall(rb"HTTP/1.1 (\d+) [^\0]*?\r\n\r\n", received)) < count:
        data = client.recv(65536)
        assert data, received
        received += data
    return [int(status) for status in found]


@pytest.mark.parametrize("size_bytes", [LARGE_BODY_BYTES - 1, LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1, len(LARGE)])
def test_requests_sent_in_one_go_are_told_apart(port: int, store: LocalObjectStore, size_bytes: int) -> None:
    bodies = {"a": LARGE[:size_bytes], "b": LARGE[-size_bytes:]}
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(
            b"".join(head(UPLOAD.format("bench", name), size_bytes) + body for name, body in bodies.items())
            + head(BUCKET, 0, method="GET")
        )
        assert statuses(client, 3) == [200, 200, 200]
    assert {name: content(store, name) for name in bodies} == bodies


def test_a_body_in_odd_pieces(port: int, store: LocalObjectStore) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head(UPLOAD.format("bench", "odd"), len(LARGE)) + LARGE[:1])
        at, sizes = 1, random.Random(3)
        while at < len(LARGE):
            size = sizes.choice((1, 1000, 70_000, 1_500_000))
            client.sendall(LARGE[at : at + size])
            at += size
        assert statuses(client, 1) == [200]
        client.sendall(head(BUCKET, 0, method="GET"))
        assert statuses(client, 1) == [200]
    assert content(store, "odd") == LARGE


def test_the_client_is_told_to_go_on(port: int, store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    on_body = BoundedProtocol.on_body

    def counted(self: BoundedProtocol, body: bytes) -> None:
        parsed.append(len(body))
        on_body(self, body)

    monkeypatch.setattr(BoundedProtocol, "on_body", counted)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head(UPLOAD.format("bench", "asked"), len(LARGE), "Expect: 100-continue"))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(LARGE)
        assert statuses(client, 1) == [200]
    assert content(store, "asked") == LARGE
    assert sum(parsed) < len(LARGE) / 2


@pytest.mark.parametrize(
    "path, extra, status",
    [
        (UPLOAD.format("no-such-bucket", "x"), [], 404),
        ("{session}", ["Content-Range: bytes 0-9/10"], 400),
        (BUCKET, [], 405),
    ],
)
def test_what_is_not_wanted_of_a_body_is_no_request(port: int, path: str, extra: list[str], status: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", UPLOAD.format("bench", "short").replace("media", "resumable"), b"{}")
    session = connection.getresponse().getheader("location")
    assert session
    connection.close()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        request = head(BUCKET, 0, method="GET")
        body = (request * (len(LARGE) // len(request)))[: 5 * 1024 * 1024]
        client.sendall(head(path.format(session=session), len(body), *extra) + body + request)
        assert statuses(client, 2) == [status, 200]
        client.sendall(request)
        assert statuses(client, 1) == [200]


def test_a_client_that_leaves_leaves_nothing(port: int, store: LocalObjectStore) -> None:
    def n_open() -> int:
        return sum(str(path.readlink()).startswith("socket:") for path in FDS.iterdir() if os.path.lexists(path))

    before = n_open()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(head(UPLOAD.format("bench", "half"), len(LARGE)) + LARGE[: len(LARGE) // 2])
    deadline = time.monotonic() + 30
    while n_open() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert n_open() <= before
    assert not store.list("bench", prefix="half").objects
