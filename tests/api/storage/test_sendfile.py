"""Large contents leave by sendfile, small ones in one write with their heads; whatever the client does."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from enginehouse.api import sendfile
from enginehouse.api.protocol import OneWrite
from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving

LARGE = random.Random(1).randbytes(12 * 1024 * 1024 + 5)
SMALL = b"small"
PATH = "/download/storage/v1/b/bench/o/large?alt=media"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    store = LocalObjectStore(tmp_path_factory.mktemp("store"), SystemClock())
    store.create_bucket("bench")
    for name, data in (("large", LARGE), ("small", SMALL)):
        with store.writer("bench", name) as writer:
            writer.write(data)
    with serving(storage_routes(store)) as url:
        yield int(url.rpartition(":")[2])
    store.close()


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was sent by the kernel, call by call."""
    sent: list[int] = []
    push = sendfile._push

    def counted(connection: int, file: int, offset: int, stop: int) -> int:
        end = push(connection, file, offset, stop)
        sent.append(end - offset)
        return end

    monkeypatch.setattr(sendfile, "_push", counted)
    return sent


def test_whole_and_in_parts_on_one_connection(port: int, pushed: list[int]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for header, part in (
        (None, slice(None)),
        ("bytes=100000-9000000", slice(100000, 9000001)),
        ("bytes=-300000", slice(-300000, None)),
        ("bytes=5-70000", slice(5, 70001)),
        ("bytes=5-9", slice(5, 10)),
    ):
        connection.request("GET", PATH, headers={"Range": header} if header else {})
        response = connection.getresponse()
        assert response.status == (206 if header else 200)
        assert response.read() == LARGE[part], header
    connection.close()
    assert sum(pushed) == len(LARGE) + 8900001 + 300000 + 69996


def test_a_head_request_has_no_body(port: int, pushed: list[int]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("HEAD", PATH)
    response = connection.getresponse()
    assert (response.status, response.getheader("content-length"), response.read()) == (200, str(len(LARGE)), b"")
    connection.request("GET", PATH.replace("large", "small"))
    assert connection.getresponse().read() == SMALL
    connection.close()
    assert not pushed


def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        ask = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
        small = PATH.replace("large", "small")
        client.sendall((ask.format(small) + ask.format(PATH) + ask.format(small)).encode())
        received = bytearray()
        while not received.endswith(b"\r\n\r\n" + SMALL) or len(received) < len(LARGE):
            data = client.recv(1024 * 1024)
            assert data
            received += data
    first, second, third = received.index(SMALL), received.index(LARGE), received.rindex(SMALL)
    assert first < second < second + len(LARGE) < third


def test_a_client_that_reads_slowly_keeps_nobody_waiting(port: int, pushed: list[int]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        slow.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = slow.recv(100)
        for _ in range(3):
            quick = HTTPConnection("127.0.0.1", port, timeout=30)
            quick.request("GET", PATH)
            assert quick.getresponse().read() == LARGE
            quick.close()
        received = bytearray(head)
        while len(received) < len(LARGE):
            received += slow.recv(65536)
        assert bytes(received).endswith(LARGE[-1000:]) or slow.recv(65536)
    assert len(pushed) > 4  # the slow one's part by part


def test_a_client_that_leaves_leaves_nothing_open(port: int, pushed: list[int]) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(1000)
    deadline = time.monotonic() + 30
    while n_open() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert n_open() <= before
    assert sum(pushed) < 5 * len(LARGE)


def test_what_is_not_in_memory_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SMALL)
    with path.open("rb", buffering=0) as file:
        assert sendfile.read_cached(file, 0, len(SMALL)) in (SMALL, None)
        assert sendfile.read_cached(file, 0, len(SMALL) + 1) is None
    with socket.socket() as other, other.makefile("rb") as unlike:
        assert sendfile.read_cached(unlike, 0, 1) is None


class _Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written.append(b"".join(parts))

    def close(self) -> None:
        self.closed_after = len(self.written)


def test_a_head_leaves_with_its_body_or_by_itself_at_the_next_turn() -> None:
    async def scenario() -> None:
        transport = _Transport()
        writer = OneWrite(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
        writer.write(b"head")
        writer.write(b"body")
        writer.write(b"more")
        assert transport.written == [b"headbody"]
        await asyncio.sleep(0)
        assert transport.written == [b"headbody", b"more"]
        writer.write(b"head")
        writer.write(b"x" * 100_000)
        writer.write(b"last")
        writer.close()
        assert transport.written[2:] == [b"head" + b"x" * 100_000, b"last"]
        assert transport.closed_after == 4

    asyncio.run(scenario())
