"""A kept answer is the one that the store would give now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from enginehouse.api.storage import storage_routes
from enginehouse.api.storage.downloads import SMALL_BYTES
from enginehouse.api.storage.kept import KeptAnswers
from enginehouse.api.storage.routing import StorageApp
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore

PATH = "/download/storage/v1/b/bench/o/{}?alt=media"


class Counting(LocalObjectStore):
    """Counts how often an object is asked for."""

    opened = 0

    def open_at_once(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.opened += 1
        return super().open_at_once(*args, **kwargs)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counting]:
    store = Counting(tmp_path / "objects", SystemClock())
    store.create_bucket("bench")
    put(store, "a", b"first")
    yield store
    store.close()


@pytest.fixture
def client(store: Counting) -> TestClient:
    return client_of(store, 1024 * 1024)


def client_of(store: LocalObjectStore, max_bytes: int) -> TestClient:
    app = StorageApp(storage_routes(store), Starlette(), KeptAnswers(store, max_bytes))
    return TestClient(app)


def put(store: LocalObjectStore, name: str, data: bytes) -> None:
    with store.writer("bench", name) as writer:
        writer.write(data)


def get(client: TestClient, name: str = "a", **headers: str) -> Any:
    return client.get(PATH.format(name), headers=headers)


def test_an_answer_is_kept_until_something_changes(client: TestClient, store: Counting) -> None:
    first = get(client)
    assert (first.status_code, first.content, store.opened) == (200, b"first", 1)
    again = get(client)
    assert (again.content, again.headers, store.opened) == (first.content, first.headers, 1)
    put(store, "a", b"second")
    assert (get(client).content, get(client).content, store.opened) == (b"second", b"second", 2)
    store.update("bench", "a", lambda old: replace(old, content_type="text/x"))
    assert get(client).headers["content-type"] == get(client).headers["content-type"] == "text/x"
    store.delete("bench", "a")
    assert get(client).status_code == get(client).status_code == 404
    put(store, "a", b"third")
    assert get(client).content == b"third"


def test_another_process_may_change_it(client: TestClient, store: Counting, tmp_path: Path) -> None:
    assert get(client).content == get(client).content == b"first"
    other = LocalObjectStore(tmp_path / "objects", SystemClock())
    put(other, "a", b"others'")
    other.close()
    assert get(client).content == b"others'"


def test_what_changes_while_it_is_read_is_not_kept(
    client: TestClient, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = store.open_at_once

    def overtaken(*args, **kwargs):  # type: ignore[no-untyped-def]
        opened = opens(*args, **kwargs)
        put(store, "a", b"overtakes")
        return opened

    monkeypatch.setattr(store, "open_at_once", overtaken)
    assert get(client).content == b"first"
    monkeypatch.undo()
    assert get(client).content == b"overtakes"


def test_other_questions_get_their_own_answers(client: TestClient, store: Counting) -> None:
    put(store, "b", b"other")
    assert get(client).content == get(client).content == b"first"
    assert get(client, "b").content == b"other"
    part = get(client, Range="bytes=1-2")
    assert (part.status_code, part.content) == (206, b"ir")
    assert client.head(PATH.format("a")).content == b""
    assert client.get(PATH.format("a") + "&ifGenerationMatch=1").status_code == 412
    assert client.get(PATH.format("a") + "&generation=1").status_code == 404
    assert client.get("/storage/v1/b/bench/o/a").json()["name"] == "a"
    assert get(client).content == b"first"


def test_only_what_is_small_is_kept_and_only_so_much(store: Counting) -> None:
    put(store, "large", b"x" * (SMALL_BYTES + 1))
    put(store, "b", b"y")
    client = client_of(store, 3000)
    for name in ("large", "large", "a", "a", "b", "b"):
        assert get(client, name).status_code == 200
    assert store.opened == 4
    put(store, "c", b"z" * 2000)  # more than there is room for: all are dropped
    for name in ("a", "c", "c", "a", "a"):
        assert get(client, name).status_code == 200
    assert store.opened == 4 + 4
