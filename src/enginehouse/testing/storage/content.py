"""Contract tests of objects: content, generations, names."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from enginehouse.core.errors import (
    Aborted,
    InvalidArgument,
    NotFound,
)
from enginehouse.storage.base import (
    ComposeSource,
    Digests,
    ObjectAttributes,
    ObjectStore,
)
from enginehouse.testing.storage.helpers import (
    BUCKET,
    HOSTILE_NAMES,
    REFUSED_NAMES,
    StoreFixtures,
    crc32c_of,
    list_all,
    md5_of,
    put,
    read,
)


class ContentContract(StoreFixtures):
    """What is written reads back, whole, under any name."""

    @pytest.mark.parametrize("size_bytes", [0, 1, 1024 * 1024, 3 * 1024 * 1024 + 7])
    def test_content_reads_back_with_its_checksums(self, store: ObjectStore, size_bytes: int) -> None:
        data = random.Random(size_bytes).randbytes(size_bytes)
        with store.writer(BUCKET, "x") as writer:
            for at in range(0, size_bytes, 700_001):
                writer.write(data[at : at + 700_001])
        info, file = store.open_read(BUCKET, "x")
        with file:
            assert file.read() == data
            file.seek(size_bytes // 2)
            assert file.read(10) == data[size_bytes // 2 :][:10]
        assert (info.size_bytes, info.md5, info.crc32c) == (size_bytes, md5_of(data), crc32c_of(data))
        assert info == store.get(BUCKET, "x")
        assert info.metageneration == 1 and info.component_count is None

    def test_what_is_opened_at_once_is_what_is_there(self, store: ObjectStore) -> None:
        put(store, "x", b"old")
        old = store.get(BUCKET, "x")
        put(store, "x", b"new")
        found = store.open_at_once(BUCKET, "x")  # None is right, too
        if found is not None:
            info, file = found
            with file:
                assert (info, file.read()) == (store.get(BUCKET, "x"), b"new")
        assert store.open_at_once(BUCKET, "x", generation=old.generation) is None
        assert store.open_at_once(BUCKET, "y") is None
        assert store.open_at_once("no-such-bucket", "x") is None

    def test_nothing_is_seen_before_the_commit(self, store: ObjectStore) -> None:
        writer = store.writer(BUCKET, "x")
        writer.write(b"new")
        with pytest.raises(NotFound):
            store.get(BUCKET, "x")
        assert list_all(store) == []
        writer.commit()
        assert read(store, "x") == b"new"

    def test_an_aborted_write_changes_nothing(self, store: ObjectStore) -> None:
        before = put(store, "x", b"old")

        def fail() -> None:
            with store.writer(BUCKET, "x") as writer:
                writer.write(b"new")
                raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            fail()
        writer = store.writer(BUCKET, "x")
        writer.write(b"newer")
        writer.abort()
        writer.abort()
        with pytest.raises(Aborted):
            writer.commit()
        assert store.get(BUCKET, "x") == before and read(store, "x") == b"old"

    def test_a_wrong_checksum_of_the_client_is_refused(self, store: ObjectStore) -> None:
        for expected in (Digests(md5=md5_of(b"other")), Digests(crc32c=crc32c_of(b"other"))):
            writer = store.writer(BUCKET, "x")
            writer.write(b"data")
            with pytest.raises(InvalidArgument):
                writer.commit(expected)
        with pytest.raises(NotFound):
            store.get(BUCKET, "x")
        writer = store.writer(BUCKET, "x")
        writer.write(b"data")
        assert writer.commit(Digests(md5_of(b"data"), crc32c_of(b"data"))).size_bytes == 4

    def test_an_open_file_outlives_its_generation(self, store: ObjectStore) -> None:
        put(store, "x", b"first")
        _, first = store.open_read(BUCKET, "x")
        put(store, "x", b"second")
        _, second = store.open_read(BUCKET, "x")
        store.delete(BUCKET, "x")
        with first, second:
            assert (first.read(), second.read()) == (b"first", b"second")

    def test_generations_grow_whatever_happens_in_between(
        self, store: ObjectStore, open_store: Callable[[], ObjectStore]
    ) -> None:
        seen = [put(store, "x").generation, put(store, "y").generation, put(store, "x").generation]
        store.delete(BUCKET, "x")
        seen.append(put(store, "x").generation)
        seen.append(store.copy(BUCKET, "x", BUCKET, "x").generation)
        seen.append(store.move(BUCKET, "x", "z").generation)
        seen.append(store.compose(BUCKET, "x", [ComposeSource("z")]).generation)
        again = open_store()
        seen.append(put(again, "x").generation)
        again.close()
        assert seen == sorted(set(seen))

    def test_a_generation_that_is_not_the_newest_is_not_found(self, store: ObjectStore) -> None:
        old, new = put(store, "x", b"1").generation, put(store, "x", b"2").generation
        assert store.get(BUCKET, "x", generation=new).generation == new
        for call in (
            lambda: store.get(BUCKET, "x", generation=old),
            lambda: store.open_read(BUCKET, "x", generation=old),
            lambda: store.delete(BUCKET, "x", generation=old),
            lambda: store.update(BUCKET, "x", lambda a: a, generation=old),
            lambda: store.copy(BUCKET, "x", BUCKET, "y", source_generation=old),
            lambda: store.compose(BUCKET, "y", [ComposeSource("x", old)]),
        ):
            with pytest.raises(NotFound):
                call()
        assert list_all(store) == ["x"]

    def test_everything_is_there_after_the_store_is_opened_again(
        self, store: ObjectStore, open_store: Callable[[], ObjectStore]
    ) -> None:
        attributes = ObjectAttributes(
            content_type="text/plain; charset=utf-8",
            cache_control="no-store",
            content_disposition="inline",
            content_encoding="gzip",
            content_language="de",
            custom_time="2026-01-01T00:00:00Z",
            storage_class="COLDLINE",
            metadata={"ключ": "значение"},
        )
        info = put(store, "x", b"data", attributes=attributes)
        assert info.attributes == attributes
        again = open_store()
        assert again.get(BUCKET, "x") == info and read(again, "x") == b"data"
        again.close()

    def test_any_name_lives_beside_any_other(self, store: ObjectStore) -> None:
        for name in HOSTILE_NAMES:
            put(store, name, name.encode())
        assert list_all(store, max_results=4) == sorted(HOSTILE_NAMES, key=str.encode)
        for name in HOSTILE_NAMES:
            assert read(store, name) == name.encode()
            assert list_all(store, prefix=name)[0] == name
        for name in HOSTILE_NAMES:
            store.delete(BUCKET, name)
        assert list_all(store) == []

    @pytest.mark.parametrize("name", REFUSED_NAMES)
    def test_a_bad_name_is_refused_wherever_an_object_is_made(self, store: ObjectStore, name: str) -> None:
        put(store, "x")
        for make in (
            lambda: store.writer(BUCKET, name),
            lambda: store.copy(BUCKET, "x", BUCKET, name),
            lambda: store.move(BUCKET, "x", name),
            lambda: store.compose(BUCKET, name, [ComposeSource("x")]),
            lambda: store.create_upload(BUCKET, name),
        ):
            with pytest.raises(InvalidArgument):
                make()
        assert list_all(store) == ["x"]
