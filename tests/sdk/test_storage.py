"""Transfers against the real storage API, and against a server that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from pathlib import Path

import pytest

from enginehouse.core.errors import Aborted, AlreadyExists, NotFound, Unavailable
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.storage import RESUMABLE_FROM_BYTES, Storage
from enginehouse.sdk.transport import Transport
from enginehouse.testing.http import Answer, FakeHttpEngine, Request

X = ObjectUri("bkt", "dir/x y+%#ü.bin")


@pytest.mark.parametrize(
    "size_bytes", [0, 1, RESUMABLE_FROM_BYTES, RESUMABLE_FROM_BYTES + 1, 2 * RESUMABLE_FROM_BYTES, 20_000_000]
)
def test_what_goes_up_comes_down(storage: Storage, size_bytes: int, tmp_path: Path) -> None:
    data = os.urandom(size_bytes)
    sent: list[int] = []
    stored = storage.upload(io.BytesIO(data), X, on_bytes=sent.append)
    assert (stored.uri, stored.size_bytes, sum(sent)) == (X, size_bytes, size_bytes)
    target, got = tmp_path / "new" / "file", list[int]()
    storage.download_file(storage.stat(X), target, on_bytes=got.append)
    assert target.read_bytes() == data
    assert sum(got) == size_bytes
    assert [path.name for path in target.parent.iterdir()] == ["file"], "no temporary file is left"


def test_ranges(storage: Storage) -> None:
    info = storage.upload(io.BytesIO(b"0123456789"), X)
    assert b"".join(storage.read(info, start=2, end=5)) == b"234"
    assert b"".join(storage.read(info, start=8)) == b"89"
    assert b"".join(storage.read(info, start=10)) == b""
    assert b"".join(storage.read(info, start=5, end=99)) == b"56789"


def test_listing_levels_and_all(storage: Storage) -> None:
    for name in ("a", "d/b", "d/e/c"):
        storage.upload(io.BytesIO(b"x"), ObjectUri("bkt", name))
    assert [each.uri.name for each in storage.list("bkt")] == ["a", "d/b", "d/e/c"]
    level = storage.list_level("bkt", "d/")
    assert [each.uri.name for each in level.objects] == ["d/b"]
    assert level.prefixes == ["d/e/"]
    assert storage.has_prefix(ObjectUri("bkt", "d"))
    assert not storage.has_prefix(ObjectUri("bkt", "a"))


def test_more_objects_than_a_page(storage: Storage) -> None:
    for number in range(1005):
        storage.upload(io.BytesIO(b""), ObjectUri("bkt", f"{number:04}"))
    assert [each.uri.name for each in storage.list("bkt")] == [f"{number:04}" for number in range(1005)]


def test_copy_delete_find(storage: Storage) -> None:
    storage.upload(io.BytesIO(b"data"), X)
    other = ObjectUri("bkt", "copy/of it")
    assert storage.copy(X, other).size_bytes == 4
    storage.delete(X)
    assert storage.find(X) is None
    assert storage.find(other) is not None
    with pytest.raises(NotFound):
        storage.copy(X, other)


def test_buckets(storage: Storage) -> None:
    with pytest.raises(AlreadyExists):
        storage.create_bucket("bkt")
    storage.create_bucket("another")
    assert sorted(bucket["name"] for bucket in storage.list_buckets()) == ["another", "bkt"]
    storage.delete_bucket("another")
    assert not storage.bucket_exists("another")
    assert storage.bucket_exists("bkt")


def fake_object(data: bytes, **more: object) -> dict[str, object]:
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    return {"bucket": "bkt", "name": "x", "size": str(len(data)), "md5Hash": md5, "generation": "1", **more}


def test_a_broken_upload_goes_on_where_it_stopped() -> None:
    """The server takes part of a piece and hangs up; the client asks what there is, and sends the rest."""
    data = os.urandom(RESUMABLE_FROM_BYTES + 100)
    have = bytearray()
    state = {"hung_up": False}

    def put(request: Request) -> Answer:
        told = request.headers["content-range"].removeprefix("bytes ")
        span, _, total = told.partition("/")
        if span != "*":
            start = int(span.partition("-")[0])
            assert start == len(have), "a gap or an overlap"
            if not state["hung_up"]:
                state["hung_up"] = True
                have.extend(request.body[: 1024 * 1024])
                return Answer(hang_up=True)
            have.extend(request.body)
        if total != "*" and len(have) == int(total):
            return Answer(json_body=fake_object(bytes(have)))
        return Answer(308, headers={"Range": f"bytes=0-{len(have) - 1}"} if have else {})

    with FakeHttpEngine() as engine:
        engine.on("POST", "/upload/storage/v1/b/bkt/o", Answer(headers={"Location": f"{engine.url}/session?id=1"}))
        engine.on("PUT", "/session", put)
        storage = Storage(Transport(lambda: engine.url), "p", sleep=lambda _: None)
        moved: list[int] = []
        storage.upload(io.BytesIO(data), ObjectUri("bkt", "x"), on_bytes=moved.append)
    assert bytes(have) == data
    assert sum(moved) == len(data)


def test_an_upload_gives_up_after_some_tries() -> None:
    with FakeHttpEngine() as engine:
        engine.on("POST", "/upload/storage/v1/b/bkt/o", Answer(headers={"Location": f"{engine.url}/session?id=1"}))
        engine.on("PUT", "/session", Answer(hang_up=True))
        storage = Storage(Transport(lambda: engine.url), "p", sleep=lambda _: None)
        with pytest.raises(Unavailable):
            storage.upload(io.BytesIO(b"x" * (RESUMABLE_FROM_BYTES + 1)), ObjectUri("bkt", "x"))
        assert len(engine.of("PUT")) == 4


def test_a_small_upload_is_sent_again_and_verified() -> None:
    with FakeHttpEngine() as engine:
        path = "/upload/storage/v1/b/bkt/o"
        engine.on("POST", path, Answer(hang_up=True), fake_object(b"data"), fake_object(b"dat!"))
        storage = Storage(Transport(lambda: engine.url), "p", sleep=lambda _: None)
        assert storage.upload(io.BytesIO(b"data"), ObjectUri("bkt", "x")).size_bytes == 4
        with pytest.raises(Aborted, match="arrived damaged"):
            storage.upload(io.BytesIO(b"data"), ObjectUri("bkt", "x"))


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)

    def get(request: Request) -> Answer:
        start, end = (int(part) for part in request.headers["range"].removeprefix("bytes=").split("-"))
        assert request.query["generation"] == "1"
        stop = min(end + 1, start + 400_000)
        # Promises more than it sends, as a connection that breaks does.
        return Answer(206, body=data[start:stop], headers={"Connection": "close"})

    with FakeHttpEngine() as engine:
        engine.on("GET", "/storage/v1/b/bkt/o/x", fake_object(data), get)
        storage = Storage(Transport(lambda: engine.url), "p", sleep=lambda _: None)
        storage.download_file(storage.stat(ObjectUri("bkt", "x")), tmp_path / "x")
        assert len(engine.of("GET")) == 4
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("told", [{}, {"md5Hash": None, "crc32c": "AAAAAA=="}])
def test_a_damaged_download_leaves_no_file(tmp_path: Path, told: dict[str, object]) -> None:
    with FakeHttpEngine() as engine:
        engine.on("GET", "/storage/v1/b/bkt/o/x", fake_object(b"good", **told), Answer(body=b"evil"))
        storage = Storage(Transport(lambda: engine.url), "p", sleep=lambda _: None)
        with pytest.raises(Aborted, match="arrived damaged"):
            storage.download_file(storage.stat(ObjectUri("bkt", "x")), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
