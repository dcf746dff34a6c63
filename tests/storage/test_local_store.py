"""The local store keeps the contract, leaves no file behind and shares content where it may."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginehouse.core.errors import FailedPrecondition, Internal, NotFound
from enginehouse.storage.base import ComposeSource, ObjectStore
from enginehouse.storage.index import Index
from enginehouse.storage.local import LocalObjectStore
from enginehouse.storage.resource import ResourceTexts
from enginehouse.storage.rows import Rows, StoredObject
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.storage import ObjectStoreContract
from enginehouse.testing.storage.helpers import BUCKET, list_all, md5_of, put, read


class TestLocalStore(ObjectStoreContract):
    """With a clock that stands still, which generations must not mind."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], ObjectStore]:
        return lambda: LocalObjectStore(tmp_path / "objects", FakeClock())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path, clock: FakeClock) -> Iterator[LocalObjectStore]:
    store = LocalObjectStore(root, clock)
    store.create_bucket(BUCKET)
    yield store
    store.close()


def blobs(root: Path) -> list[Path]:
    return sorted((root / "blobs").glob("*/*"))


def test_every_blob_belongs_to_an_object(store: LocalObjectStore, root: Path) -> None:
    put(store, "x", b"1")
    put(store, "x", b"2")
    store.copy(BUCKET, "x", BUCKET, "y")
    store.copy(BUCKET, "y", BUCKET, "y")
    store.move(BUCKET, "y", "x")
    store.compose(BUCKET, "z", [ComposeSource("x")] * 3)
    store.compose(BUCKET, "x", [ComposeSource("x"), ComposeSource("z")], delete_sources=True)
    store.writer(BUCKET, "x").abort()
    upload_id = store.create_upload(BUCKET, "x").upload_id
    store.append_upload(upload_id, 0, b"3")
    store.finish_upload(upload_id, size_bytes=1)
    store.cancel_upload(store.create_upload(BUCKET, "x").upload_id)
    assert blobs(root) == [store.local_path(BUCKET, "x")] and read(store, "x") == b"3"
    store.delete(BUCKET, "x")
    assert blobs(root) == []


def test_blobs_are_read_only_and_shared_by_copies_and_exports(store: LocalObjectStore, tmp_path: Path) -> None:
    put(store, "x", b"data")
    store.copy(BUCKET, "x", BUCKET, "y")
    store.export(BUCKET, "", tmp_path / "out")
    upload_id = store.create_upload(BUCKET, "z").upload_id
    store.finish_upload(upload_id, size_bytes=0)
    paths = [store.local_path(BUCKET, "x"), store.local_path(BUCKET, "y"), tmp_path / "out" / "x"]
    assert len({path.stat().st_ino for path in paths if path}) == 1
    assert len(set(paths)) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*paths, store.local_path(BUCKET, "z")] if path} == {0o444}


def test_where_no_links_are_possible_content_is_copied(
    store: LocalObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    put(store, "x", b"data")
    store.copy(BUCKET, "x", BUCKET, "y")
    store.export(BUCKET, "", tmp_path / "out")
    assert read(store, "y") == (tmp_path / "out" / "x").read_bytes() == b"data"
    assert (tmp_path / "out" / "x").stat().st_nlink == 1


def test_leftovers_are_collected_but_not_what_is_being_written(
    store: LocalObjectStore, root: Path, clock: FakeClock
) -> None:
    put(store, "x", b"kept")
    upload_id = store.create_upload(BUCKET, "u").upload_id
    store.append_upload(upload_id, 0, b"kept too")
    writer = store.writer(BUCKET, "w")
    writer.write(b"being written")
    for leftover in (root / "blobs" / "ab" / ("c" * 30), blobs(root)[0].with_name("d" * 30)):
        leftover.parent.mkdir(exist_ok=True)
        leftover.write_bytes(b"left by a kill")
    other = LocalObjectStore(root, clock)
    assert len(blobs(root)) == 3
    writer.commit()
    assert read(other, "w") == b"being written" and read(other, "x") == b"kept"
    assert other.append_upload(upload_id, 8, b"!") == 9
    other.close()


def test_a_week_old_upload_is_forgotten(store: LocalObjectStore, root: Path, clock: FakeClock) -> None:
    old = store.create_upload(BUCKET, "x").upload_id
    store.append_upload(old, 0, b"data")
    clock.advance(8 * 24 * 3600)
    new = store.create_upload(BUCKET, "x").upload_id
    with pytest.raises(NotFound):
        store.get_upload(old)
    assert store.get_upload(new).offset == 0 and len(blobs(root)) == 1


def test_after_a_failed_write_the_disk_tells_how_far_an_upload_is(
    store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = store.create_upload(BUCKET, "x").upload_id
    store.append_upload(upload_id, 0, b"0123")
    real_write, calls = os.write, 0

    def disk_fills_up(descriptor: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, bytes(data)[:2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", disk_fills_up)
        with pytest.raises(OSError, match="No space"):
            store.append_upload(upload_id, 4, b"4567")
    assert store.get_upload(upload_id).offset == 6
    assert store.append_upload(upload_id, 6, b"67") == 8
    assert store.finish_upload(upload_id, size_bytes=8).md5 == md5_of(b"01234567")


def test_a_failed_write_leaves_no_blob(store: LocalObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "x", b"old")

    def fail(self: Rows, stored: StoredObject) -> None:
        raise RuntimeError("the index failed")

    monkeypatch.setattr(Rows, "put_object", fail)
    with pytest.raises(RuntimeError):
        put(store, "x", b"new")
    with pytest.raises(RuntimeError):
        store.copy(BUCKET, "x", BUCKET, "y")
    monkeypatch.undo()
    assert len(blobs(root)) == 1 and read(store, "x") == b"old"


def test_missing_content_is_told_and_not_waited_for(store: LocalObjectStore, root: Path) -> None:
    put(store, "x", b"data")
    blobs(root)[0].unlink()
    with pytest.raises(Internal, match="missing on the disk"):
        store.open_read(BUCKET, "x")
    with pytest.raises(Internal, match="missing on the disk"):
        store.copy(BUCKET, "x", BUCKET, "y")


def test_a_newer_index_is_refused_with_the_cure(store: LocalObjectStore, root: Path) -> None:
    with store._index.write() as rows:
        rows.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(FailedPrecondition, match="Upgrade Enginehouse"):
        Index(root / "index.sqlite3")


def test_a_common_prefix_costs_one_row_however_many_objects_it_has(
    store: LocalObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = put(store, "template")
    with store._index.write() as rows:
        for folder in range(4):
            for number in range(3000):
                name = f"folder-{folder}/{number:05}"
                rows.put_object(StoredObject(replace(info, name=name), f"blob-{folder}-{number}"))
    read_rows = 0
    objects_from = Rows.objects_from

    def counting(self: Rows, bucket: str, start: str, end: str | None) -> Iterator[StoredObject]:
        nonlocal read_rows
        for stored in objects_from(self, bucket, start, end):
            read_rows += 1
            yield stored

    monkeypatch.setattr(Rows, "objects_from", counting)
    page = store.list(BUCKET, delimiter="/")
    assert page.prefixes == [f"folder-{folder}/" for folder in range(4)]
    assert [found.name for found in page.objects] == ["template"] and page.next_page_token == ""
    assert read_rows == 5
    monkeypatch.undo()
    assert len(list_all(store, prefix="folder-2/")) == 3000


def test_texts_of_listings_are_dropped_when_there_are_too_many(store: LocalObjectStore) -> None:
    infos = [put(store, f"o{index}") for index in range(5)]
    kept = ResourceTexts(max_bytes=2000)
    texts = [text for info in infos for text in kept.of([info])]
    assert sum(map(len, texts)) > 2000
    versions = [(info.generation, info.metageneration) for info in infos]
    assert kept.known(versions) is None
    assert kept.known(versions[-1:]) == texts[-1:]
