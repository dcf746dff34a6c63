"""Hostile names and bodies: refused or served, never outside the store, never a crash.

The table in docs/security.md has a row for each of these tests.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from enginehouse.api.protocol import BoundedProtocol
from enginehouse.api.storage import storage_routes
from enginehouse.api.storage.hosts import StorageHosts
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import list_all, put, read
from enginehouse.testing.web import serving

BUCKET = "hostile-bucket"
UPLOAD = f"/upload/storage/v1/b/{BUCKET}/o"
OBJECTS = f"/storage/v1/b/{BUCKET}/o"
NO_UTF_8 = ("%c0%ae%c0%ae%2fsecret", "%ff")
SECRET = b"outside of every bucket"
TIMEOUT_S = 10

Exchange = Callable[..., tuple[int, bytes]]


@pytest.fixture(autouse=True)
def secret(store: LocalObjectStore, tmp_path: Path) -> Iterator[Path]:
    """A file beside the store, which nothing may read or change."""
    store.create_bucket(BUCKET)
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    before = _files(tmp_path)
    yield secret
    assert secret.read_bytes() == SECRET
    assert _files(tmp_path) == before, "something was written beside the store"


def _files(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir() if path.name != "objects"}


@pytest.fixture
def client(store: LocalObjectStore) -> TestClient:
    app = StorageHosts(store, Starlette(routes=storage_routes(store)))
    return TestClient(app, base_url="https://storage.googleapis.com", raise_server_exceptions=True)


@pytest.fixture
def exchange(url: str) -> Exchange:
    """Send bytes to the server as they are, and read the answer: its status (0 for none) and everything."""

    def send(*parts: bytes, half_close: bool = False) -> tuple[int, bytes]:
        with _connected(url) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before it was all said
            return _read_answer(connection)

    return send


@contextmanager
def _connected(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=TIMEOUT_S) as connection:
        yield connection


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
            head, end, body = answer.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if end and lengths and len(body) >= int(lengths[0].partition(b":")[2]):
                break
    except (ConnectionResetError, TimeoutError):
        pass
    return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0), answer


def request(method: str, target: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    """An HTTP request with a Content-Length of `length`, or of the body."""
    size = len(body) if length is None else length
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def still_serves(url: str, exchange: Exchange) -> Callable[[], None]:
    """Asserts that the server answers others as before."""

    def check() -> None:
        status, _ = exchange(request("GET", f"/storage/v1/b/{BUCKET}"))
        assert status == 200

    return check


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "../../secret",
        "a/../../../secret",
        "/etc/passwd",
        "//etc//passwd",
        "..\\secret",
        "~/secret",
        "file:///etc/passwd",
        "x" * 1024,
        "é" * 512,
        "a/" * 511 + "a",
        "Ünï/日本語/🦆",
        "a\u0301",
        "\u202egpj.exe",
        "%2e%2e%2fsecret",
        "CON",
        ".git/config",
        "a b\tc",
        "*?[x]",
        "$(touch x)",
        "'; DROP TABLE objects; --",
        "{{7*7}}",
        "<script>",
    ],
)
def test_odd_names_are_names(client: TestClient, store: LocalObjectStore, name: str) -> None:
    """Whatever looks like a path, a pattern or code is an object's name, and is found again by that alone."""
    answer = client.post(UPLOAD, params={"uploadType": "media", "name": name}, content=b"mine")
    assert answer.json()["name"] == name
    assert list_all(store, bucket=BUCKET) == [name]
    encoded = quote(name, safe="")
    assert client.get(f"{OBJECTS}/{encoded}", params={"alt": "media"}).content == b"mine"
    assert client.get(f"/{BUCKET}/{encoded}").content == b"mine"
    assert client.delete(f"{OBJECTS}/{encoded}").status_code == 204
    assert list_all(store, bucket=BUCKET) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "a\nb", "a\rb", "x" * 1025, "é" * 513])
def test_names_that_cloud_storage_refuses(client: TestClient, store: LocalObjectStore, name: str) -> None:
    for kind in ("media", "resumable"):
        answer = client.post(UPLOAD, params={"uploadType": kind, "name": name}, content=b"")
        assert (kind, answer.status_code) == (kind, 400)
    assert store.list(BUCKET).objects == []


@pytest.mark.parametrize(
    "target",
    [
        "%2e%2e",
        "%2E%2E%2Fsecret",
        "..%2Fsecret",
        "..%2f..%2fsecret",
        "%252e%252e%252fsecret",
        "%252Fetc%252Fpasswd",
        *NO_UTF_8,
        "%",
        "%zz",
        "%00",
        "secret%00.txt",
        "....//secret",
        "../secret",
        "%5c..%5csecret",
    ],
)
@pytest.mark.parametrize("root", [f"{OBJECTS}/", f"/download{OBJECTS}/", f"/{BUCKET}/", "/storage/v1/b/"])
def test_tricks_with_percent_encoding(
    exchange: Exchange, still_serves: Callable[[], None], root: str, target: str
) -> None:
    status, answer = exchange(request("GET", f"{root}{target}?alt=media"))
    served = not root.startswith(f"/{BUCKET}")  # the XML API is not at this host
    assert status == (400 if served and target in NO_UTF_8 else 404)
    assert SECRET not in answer
    still_serves()


def test_a_name_is_decoded_once(client: TestClient, store: LocalObjectStore) -> None:
    put(store, "a%2Fb", b"encoded", bucket=BUCKET)
    put(store, "a/b", b"plain", bucket=BUCKET)
    assert client.get(f"{OBJECTS}/a%252Fb?alt=media").content == b"encoded"
    assert client.get(f"{OBJECTS}/a%2Fb?alt=media").content == b"plain"


@pytest.mark.parametrize(
    "bucket", ["..", "../x", "/etc", "a", "A-B", "a" * 223, "x\0y", "%2e%2e", "a..b", "é-bucket", "", 7, None]
)
def test_bucket_names(client: TestClient, store: LocalObjectStore, bucket: Any) -> None:
    assert client.post("/storage/v1/b", content=json.dumps({"name": bucket})).status_code == 400
    assert [info.name for info in store.list_buckets()] == [BUCKET]


def test_a_copy_can_not_leave_its_bucket(client: TestClient, store: LocalObjectStore, secret: Path) -> None:
    put(store, "x", b"1", bucket=BUCKET)
    target = quote(f"../../../{secret.name}", safe="")
    assert client.post(f"{OBJECTS}/x/rewriteTo/b/{BUCKET}/o/{target}").status_code == 200
    assert client.post(f"{OBJECTS}/x/moveTo/o/{quote('../y', safe='')}").status_code == 200
    assert client.post(f"{OBJECTS}/x/rewriteTo/b/..%2f..%2f/o/x").status_code == 404
    assert list_all(store, bucket=BUCKET) == ["../../../secret", "../y"]


# Bodies


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/related; boundary=B", b""),
        ("multipart/related; boundary=B", b"--B\r\n"),
        ("multipart/related; boundary=B", b"--B\r\nContent-Type: application/json\r\n\r\n{}"),
        ("multipart/related; boundary=B", b'--B\r\n\r\n{"name": "x"}\r\n--B\r\n\r\nno end'),
        ("multipart/related; boundary=B", b'--B\r\n\r\n{"name": "x"\r\n--B\r\n\r\ndata\r\n--B--\r\n'),
        ("multipart/related; boundary=B", b"--B\r\n\r\n[]\r\n--B\r\n\r\ndata\r\n--B--\r\n"),
        ("multipart/related; boundary=B", b"--C\r\n\r\n{}\r\n--C\r\n\r\ndata\r\n--C--\r\n"),
        ("multipart/related; boundary=B", b"x" * 3_000_000),
        ("multipart/related; boundary=B", b"--B\r\n" + b"h: v\r\n" * 100_000),
        ("multipart/related; boundary=", b"--\r\n\r\n{}\r\n--\r\n\r\ndata\r\n----\r\n"),
        ("multipart/related", b"--B\r\n\r\n{}\r\n--B--\r\n"),
        ("application/json", b"{}"),
        ("", b""),
    ],
)
def test_broken_multipart_stores_nothing(
    client: TestClient, store: LocalObjectStore, content_type: str, body: bytes
) -> None:
    answer = client.post(f"{UPLOAD}?uploadType=multipart", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert store.list(BUCKET).objects == []


def begin(client: TestClient, name: str = "x", **headers: str) -> str:
    """The path of a new session."""
    answer = client.post(UPLOAD, params={"uploadType": "resumable", "name": name}, headers=headers)
    return answer.headers["location"].removeprefix("https://storage.googleapis.com")


@pytest.mark.parametrize(
    ("content_range", "body", "status"),
    [
        ("bytes 0-3/4", b"12", 400),  # shorter than it says
        ("bytes 0-1/2", b"1234", 400),  # longer
        ("bytes 5-8/9", b"1234", 308),  # bytes are missing before
        ("bytes 3-0/4", b"1234", 400),
        ("bytes 0-3/2", b"1234", 400),
        ("bytes 0-" + "9" * 5000 + "/*", b"1234", 400),
        ("bytes -1-3/4", b"1234", 400),
        ("bytes 0-3", b"1234", 400),
        ("lines 0-3/4", b"1234", 400),
        ("bytes */-1", b"", 400),
        ("bytes */" + "9" * 30, b"", 400),
        ("bytes \u0660-\u0663/\u0664".encode().decode("latin-1"), b"1234", 400),
    ],
)
def test_a_wrong_content_range_makes_no_object(
    client: TestClient, store: LocalObjectStore, content_range: str, body: bytes, status: int
) -> None:
    session = begin(client)
    answer = client.put(session, content=body, headers={"Content-Range": content_range.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == status
    assert store.list(BUCKET).objects == []
    client.delete(session)


@pytest.mark.parametrize("upload_id", ["", "../../secret", "x" * 5000, "%00", "' OR 1=1 --"])
def test_upload_ids_are_not_guessed_or_followed(client: TestClient, upload_id: str) -> None:
    answer = client.put(UPLOAD, params={"uploadType": "resumable", "upload_id": upload_id}, content=b"1")
    assert answer.status_code == (404 if upload_id else 400)


def test_a_body_shorter_than_its_length(
    exchange: Exchange, store: LocalObjectStore, still_serves: Callable[[], None]
) -> None:
    """The client goes away in the middle."""
    exchange(request("POST", f"{UPLOAD}?uploadType=media&name=x", body=b"half", length=1000), half_close=True)
    still_serves()
    assert store.list(BUCKET).objects == []


def test_a_body_longer_than_its_length(
    exchange: Exchange, store: LocalObjectStore, still_serves: Callable[[], None]
) -> None:
    """What is too much is the next request, and none that one could understand."""
    status, _ = exchange(request("POST", f"{UPLOAD}?uploadType=media&name=x", body=b"12345678", length=4))
    assert status == 400
    assert not store.list(BUCKET).objects or read(store, "x", bucket=BUCKET) == b"1234"
    still_serves()


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length: 5",
        "Content-Length: -1",
        "Content-Length: 0x10",
        "Content-Length: 1e3",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ],
)
def test_lengths_that_contradict(
    exchange: Exchange, store: LocalObjectStore, still_serves: Callable[[], None], header: str
) -> None:
    """The way to smuggle a request past a proxy: two framings of one body."""
    head = (
        f"POST {UPLOAD}?uploadType=media&name=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n{header}\r\n\r\n"
    )
    status, _ = exchange(head.encode() + b"1234", half_close=True)
    assert status == 400
    assert store.list(BUCKET).objects == []
    still_serves()


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n1234\r\n", b"-4\r\n1234\r\n", b"4\r\n12345678\r\n", b"FFFFFFFFFFFFFFFFF\r\n1"]
)
def test_broken_chunks(
    exchange: Exchange, store: LocalObjectStore, still_serves: Callable[[], None], chunk: bytes
) -> None:
    head = f"POST {UPLOAD}?uploadType=media&name=x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange(head.encode(), chunk, half_close=True)
    still_serves()
    assert store.list(BUCKET).objects == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"name": ' + b"[" * 100_000,
        b'{"a": 1e999999}',
        b'{"name": "\\ud800"}',
        b"x" * (2 << 20),
    ],
)
def test_broken_json(client: TestClient, body: bytes) -> None:
    assert client.post("/storage/v1/b", content=body).status_code == 400


@pytest.mark.parametrize(
    "resource",
    [
        {"contentType": "text/html\r\nSet-Cookie: a=b"},
        {"contentType": 7},
        {"metadata": {"k": 7}},
        {"metadata": []},
        {"contentDisposition": "a\0b"},
        {"cacheControl": {"x": 1}},
    ],
)
def test_attributes_that_would_break_a_header(
    client: TestClient, store: LocalObjectStore, resource: dict[str, Any]
) -> None:
    put(store, "x", b"1", bucket=BUCKET)
    assert client.patch(f"{OBJECTS}/x", json=resource).status_code == 400
    assert client.get(f"{OBJECTS}/x?alt=media").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "maxResults=-1",
        "maxResults=0",
        "maxResults=x",
        "maxResults=" + "9" * 5000,
        "pageToken=%00",
        "pageToken=../..",
        "fields=((((",
        "fields=" + "a(" * 4000,
        "generation=x",
        "ifGenerationMatch=" + "9" * 30,
        "prefix=%ff",
    ],
)
def test_broken_queries(client: TestClient, query: str) -> None:
    does_not_belong = query.startswith(("generation", "ifGeneration"))  # to listings, and is not looked at
    assert client.get(f"{OBJECTS}?{query}").status_code == (200 if does_not_belong else 400)


@pytest.mark.parametrize(
    "header", ["bytes=0-" + "9" * 5000, "bytes=" + "0-1," * 1000, "bytes=--1", "bytes=5-1", "\x01"]
)
def test_broken_ranges(client: TestClient, store: LocalObjectStore, header: str) -> None:
    put(store, "x", b"12345678", bucket=BUCKET)
    answer = client.get(f"/{BUCKET}/x", headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, b"12345678")  # RFC 9110 §14.2: as if there were no Range


def test_batches(client: TestClient, store: LocalObjectStore) -> None:
    put(store, "x", b"1", bucket=BUCKET)
    head = "--B\r\nContent-Type: application/http\r\n\r\n"
    for inner in (
        "",
        "GET",
        "POST /batch/storage/v1 HTTP/1.1\r\n\r\n",
        f"GET {OBJECTS}/x?alt=media HTTP/1.1\r\n\r\n",
        f"POST {UPLOAD}?uploadType=media&name=y HTTP/1.1\r\n\r\ndata",
        "GET http://[ HTTP/1.1\r\n\r\n",
        "GET /storage/v1/b/%ff HTTP/1.1\r\n\r\n",
    ):
        answer = client.post(
            "/batch/storage/v1",
            content=f"{head}{inner}\r\n--B--\r\n",
            headers={"Content-Type": "multipart/mixed; boundary=B"},
        )
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            assert "HTTP/1.1 4" in answer.text
    assert list_all(store, bucket=BUCKET) == ["x"]


# Connections


def test_ten_thousand_headers(exchange: Exchange, still_serves: Callable[[], None]) -> None:
    status, _ = exchange(request("GET", OBJECTS, *(f"X-{index}: {index}" for index in range(10_000))))
    assert status in (0, 400)
    still_serves()


def test_a_huge_header(exchange: Exchange, still_serves: Callable[[], None]) -> None:
    status, _ = exchange(request("GET", OBJECTS, "X-Huge: " + "x" * (4 << 20)))
    assert status in (0, 400)
    still_serves()


def test_a_huge_target(exchange: Exchange, still_serves: Callable[[], None]) -> None:
    status, _ = exchange(request("GET", f"{OBJECTS}?prefix=" + "x" * (1 << 20)))
    assert status in (0, 400)
    still_serves()


def test_a_header_without_an_end(url: str, still_serves: Callable[[], None]) -> None:
    """It is not gathered in memory for as long as it comes."""
    sent = 0
    with _connected(url) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\nX-Endless: ")
        for _ in range(100):
            connection.sendall(b"x" * (1 << 20))
            sent += 1
    assert sent < 50
    still_serves()


def test_a_head_that_dawdles_is_given_up() -> None:
    """Nothing, half a head, and half a head behind a whole request."""

    class Hasty(BoundedProtocol):
        head_timeout_s = 0.2

    whole = request("GET", "/")
    with serving([], protocol=Hasty) as url:
        for sent in (b"", whole[:20], whole + whole[:20]):
            with _connected(url) as connection:
                connection.sendall(sent)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
                assert answer.count(b"HTTP/1.1 404") == sent.count(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\r\n" * 1000, os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)
def test_what_is_no_http(exchange: Exchange, still_serves: Callable[[], None], data: bytes) -> None:
    status, _ = exchange(data, half_close=True)
    assert status in ((0,) if not data.strip() else (0, 400) if len(data) == 4096 else (400,))
    still_serves()


def test_a_hundred_clients_that_dawdle(url: str, still_serves: Callable[[], None]) -> None:
    """Slow-loris: half a request each, and the rest never; others are served meanwhile, at once."""
    slow = []
    try:
        for index in range(100):
            connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=TIMEOUT_S)
            half = request("POST", f"{UPLOAD}?uploadType=media&name=x", body=b"1", length=1000)
            connection.sendall(half if index % 2 else half[:40])
            slow.append(connection)
        began = time.monotonic()
        still_serves()
        assert time.monotonic() - began < 5
    finally:
        for connection in slow:
            connection.close()
