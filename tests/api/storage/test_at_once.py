"""Answers at once, before an application is asked: the same bytes, in order, and only to whom may have them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from enginehouse.api.lendable import LendableProtocol
from enginehouse.api.storage import storage_routes
from enginehouse.api.storage.kept import KeptAnswers
from enginehouse.core.clock import SystemClock
from enginehouse.main import Front
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving

PATH = "/download/storage/v1/b/bench/o/a?alt=media"
KEPT = Response(b"kept", headers={"X-Kept": "yes"})


class AtOnce(LendableProtocol):
    """Answers the paths that end in `now`."""

    def at_once(self, scope: Scope) -> Response | None:
        return KEPT if scope["method"] == "GET" and scope["raw_path"].endswith(b"now") else None


async def _slow(request: Request) -> Response:
    return PlainTextResponse(f"asked {(await request.body()).decode()}".strip())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving([Route("/{path}", _slow, methods=["GET", "POST"])], protocol=AtOnce) as url:
        yield int(url.rpartition(":")[2])


def bodies(port: int, *requests: str) -> list[str]:
    """Of the answers to requests that are sent together."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall("".join(requests).encode())
        while len(found := re.findall(rb"\r\n\r\n(kept|asked(?: hi)?)", received)) < len(requests):
            data = client.recv(65536)
            assert data, received
            received += data
    return [body.decode() for body in found]


def request(path: str, *headers: str, method: str = "GET", body: str = "") -> str:
    return "\r\n".join([f"{method} {path}?alt=media HTTP/1.1", "Host: x", *headers, "", body])


def test_answers_come_in_order(port: int) -> None:
    now, later = request("/now"), request("/later")
    assert bodies(port, now) == ["kept"]
    found = bodies(port, later, now, now, later, now)  # what waits for another answer goes the long way, too
    assert found == ["asked", "asked", "asked", "asked", "asked"]
    assert bodies(port, now, later, now, later)[0] == "kept"


@pytest.mark.parametrize(
    "asked",
    [
        request("/now", method="POST", body=""),
        request("/now", "Content-Length: 2", body="hi"),
        request("/now", "Transfer-Encoding: chunked", body="2\r\nhi\r\n0\r\n\r\n"),
        request("/now", "X-Forwarded-For: 10.0.0.1"),
        request("/now", "Connection: close"),
        request("/now").replace("HTTP/1.1", "HTTP/1.0"),
        request("/now").replace("?alt=media", ""),
    ],
)
def test_what_is_not_ordinary_goes_the_long_way(port: int, asked: str) -> None:
    assert bodies(port, asked) in (["asked"], ["asked hi"])


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Any]:
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    store.create_bucket("bench")
    with store.writer("bench", "a") as writer:
        writer.write(b"content")

    async def nothing(*_: object) -> None:
        raise AssertionError

    yield lambda token: Front(nothing, nothing, KeptAnswers(store), token), store
    store.close()


@pytest.mark.parametrize(
    "token, client, headers, given",
    [
        ("", "10.0.0.1", {}, True),
        ("secret", "127.0.0.1", {}, True),
        ("secret", "10.0.0.1", {}, False),
        ("secret", "10.0.0.1", {"authorization": "Bearer wrong"}, False),
        ("secret", "10.0.0.1", {"authorization": "Bearer secret"}, True),
        ("", "127.0.0.1", {"host": "storage.googleapis.com"}, True),
        ("", "127.0.0.1", {"host": "bench.storage.googleapis.com"}, False),  # the XML API's /bench/download/…
        ("", "127.0.0.1", {"range": "bytes=0-1"}, False),
    ],
)
def test_only_who_may_enter_gets_it(
    front: Any, token: str, client: str, headers: dict[str, str], given: bool
) -> None:
    make, store = front
    kept = KeptAnswers(store)
    path, _, query = PATH.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (client, 1),
    }
    first = {**scope, "headers": []}
    assert kept.find(first) is None
    first["extensions"]["enginehouse.keep"](KEPT)
    door = make(token)
    door._kept = kept
    assert (door.at_once(scope) is KEPT) is given


def test_the_real_thing(front: Any) -> None:
    _make, store = front
    kept = KeptAnswers(store)

    class Keeping(LendableProtocol):
        def at_once(self, scope: Scope) -> Response | None:
            return kept.find(scope)

    answers = []
    with (
        serving(storage_routes(store), protocol=Keeping) as url,
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) as client,
    ):
        for _ in range(2):
            client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\ncontent"):
                answer += client.recv(65536)
            answers.append(sorted(re.sub(rb"date: [^\r]*", b"", answer).split(b"\r\n")))
    assert answers[0] == answers[1]
