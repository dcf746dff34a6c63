"""Contract tests of preconditions, attributes, copies, moves and compositions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from enginehouse.core.errors import (
    ConditionNotMet,
    InvalidArgument,
)
from enginehouse.storage.base import (
    ComposeSource,
    Digests,
    ObjectAttributes,
    ObjectStore,
    Preconditions,
)
from enginehouse.testing.storage.helpers import (
    BUCKET,
    MUST_NOT_EXIST,
    StoreFixtures,
    crc32c_of,
    list_all,
    md5_of,
    put,
    read,
)


class ChangeContract(StoreFixtures):
    """Objects change in one step, under their preconditions."""

    def test_preconditions_are_judged_by_every_write(self, store: ObjectStore) -> None:
        info = put(store, "x", b"old")
        bad = (
            MUST_NOT_EXIST,
            Preconditions(if_generation_match=info.generation + 1),
            Preconditions(if_generation_not_match=info.generation),
            Preconditions(if_metageneration_match=2),
            Preconditions(if_metageneration_not_match=1),
        )
        for conditions in bad:
            for call in (
                lambda c=conditions: store.writer(BUCKET, "x", preconditions=c),
                lambda c=conditions: store.get(BUCKET, "x", preconditions=c),
                lambda c=conditions: store.open_read(BUCKET, "x", preconditions=c),
                lambda c=conditions: store.delete(BUCKET, "x", preconditions=c),
                lambda c=conditions: store.update(BUCKET, "x", lambda a: a, preconditions=c),
                lambda c=conditions: store.copy(BUCKET, "x", BUCKET, "y", source_preconditions=c),
                lambda c=conditions: store.copy(BUCKET, "x", BUCKET, "x", preconditions=c),
                lambda c=conditions: store.compose(BUCKET, "x", [ComposeSource("x")], preconditions=c),
                lambda c=conditions: store.create_upload(BUCKET, "x", preconditions=c),
            ):
                with pytest.raises(ConditionNotMet):
                    call()
        assert list_all(store) == ["x"] and store.get(BUCKET, "x") == info
        good = Preconditions(
            if_generation_match=info.generation,
            if_generation_not_match=1,
            if_metageneration_match=1,
            if_metageneration_not_match=9,
        )
        assert put(store, "x", b"new", preconditions=good).generation > info.generation

    def test_preconditions_on_what_is_not_there(self, store: ObjectStore) -> None:
        with pytest.raises(ConditionNotMet):
            put(store, "x", preconditions=Preconditions(if_generation_match=5))
        with pytest.raises(ConditionNotMet):
            put(store, "x", preconditions=Preconditions(if_generation_not_match=0))
        put(store, "x", preconditions=MUST_NOT_EXIST)
        with pytest.raises(ConditionNotMet):
            put(store, "x", preconditions=MUST_NOT_EXIST)

    def test_preconditions_are_judged_again_at_the_commit(self, store: ObjectStore) -> None:
        late = store.writer(BUCKET, "x", preconditions=MUST_NOT_EXIST)
        late.write(b"late")
        put(store, "x", b"early")
        with pytest.raises(ConditionNotMet):
            late.commit()
        assert read(store, "x") == b"early"

    def test_of_concurrent_makers_of_one_name_one_wins(self, store: ObjectStore) -> None:
        start = threading.Barrier(8)

        def make(number: int) -> bool:
            start.wait()
            try:
                put(store, "x", b"%d" % number, preconditions=MUST_NOT_EXIST)
            except ConditionNotMet:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(make, range(8)))
        assert won.count(True) == 1
        assert read(store, "x") == b"%d" % won.index(True)

    def test_concurrent_writers_and_readers_of_one_name_see_whole_contents(self, store: ObjectStore) -> None:
        put(store, "x", b"0" * 50_000)
        generations: list[int] = []
        stop = threading.Event()

        def write(number: int) -> None:
            generations.extend(put(store, "x", b"%d" % number * 50_000).generation for _ in range(15))

        def look() -> int:
            count = 0
            while not stop.is_set():
                info, file = store.open_read(BUCKET, "x")
                with file:
                    data = file.read()
                assert len(set(data)) == 1 and len(data) == 50_000 and md5_of(data) == info.md5
                count += 1
            return count

        with ThreadPoolExecutor(6) as pool:
            readers = [pool.submit(look) for _ in range(2)]
            for writer in [pool.submit(write, number) for number in range(4)]:
                writer.result()
            stop.set()
            assert all(reader.result() > 0 for reader in readers)
        assert len(set(generations)) == 60
        assert store.get(BUCKET, "x").generation == max(generations)

    def test_attributes_change_without_a_new_generation(self, store: ObjectStore) -> None:
        before = put(store, "x", b"data", attributes=ObjectAttributes(metadata={"a": "1"}))
        after = store.update(
            BUCKET, "x", lambda old: replace(old, content_type="text/csv", metadata={**old.metadata, "b": "2"})
        )
        assert after == store.get(BUCKET, "x")
        assert after == replace(
            before,
            content_type="text/csv",
            metadata={"a": "1", "b": "2"},
            metageneration=2,
            updated_ns=after.updated_ns,
        )
        assert read(store, "x") == b"data"

    def test_a_change_is_marked(self, store: ObjectStore) -> None:
        put(store, "x")
        if store.open_at_once(BUCKET, "x") is None:
            pytest.skip("the store opens nothing at once")
        marks = [store.change_mark(), store.change_mark()]
        assert marks[0] == marks[1] is not None
        put(store, "x")
        marks.append(store.change_mark())
        store.update(BUCKET, "x", lambda old: replace(old, content_type="text/x"))
        marks.append(store.change_mark())
        store.delete(BUCKET, "x")
        marks.append(store.change_mark())
        assert len(set(marks)) == 4

    def test_concurrent_changes_are_all_kept(self, store: ObjectStore) -> None:
        put(store, "x")

        def add(number: int) -> None:
            store.update(BUCKET, "x", lambda old: replace(old, metadata={**old.metadata, str(number): ""}))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(40)))
        info = store.get(BUCKET, "x")
        assert len(info.metadata) == 40 and info.metageneration == 41

    def test_a_copy_stands_by_itself(self, store: ObjectStore) -> None:
        store.create_bucket("other-bucket")
        source = put(store, "x", b"data", attributes=ObjectAttributes(content_type="text/csv", metadata={"a": "1"}))
        same = store.copy(BUCKET, "x", "other-bucket", "y")
        changed = store.copy(BUCKET, "x", BUCKET, "z", change=lambda old: replace(old, metadata={}))
        assert same.attributes == source.attributes
        assert (same.size_bytes, same.md5, same.crc32c, same.metageneration) == (4, source.md5, source.crc32c, 1)
        assert (changed.content_type, changed.metadata) == ("text/csv", {})
        put(store, "x", b"overwritten")
        store.delete(BUCKET, "x")
        assert read(store, "y", bucket="other-bucket") == read(store, "z") == b"data"
        store.delete("other-bucket", "y")
        assert read(store, "z") == b"data"

    def test_a_move_replaces_its_destination_and_takes_the_source_away(self, store: ObjectStore) -> None:
        put(store, "x", b"moved", attributes=ObjectAttributes(content_type="text/csv"))
        put(store, "y", b"replaced")
        with pytest.raises(ConditionNotMet):
            store.move(BUCKET, "x", "y", preconditions=MUST_NOT_EXIST)
        assert list_all(store) == ["x", "y"]
        assert store.move(BUCKET, "x", "y").content_type == "text/csv"
        assert list_all(store) == ["y"] and read(store, "y") == b"moved"
        with pytest.raises(InvalidArgument):
            store.move(BUCKET, "y", "y")

    def test_objects_are_composed_in_order(self, store: ObjectStore) -> None:
        for name in ("a", "b", "c"):
            put(store, name, name.encode() * 3)
        joined = store.compose(
            BUCKET,
            "a",
            [ComposeSource("a"), ComposeSource("c", store.get(BUCKET, "c").generation), ComposeSource("a")],
            attributes=ObjectAttributes(content_type="text/plain"),
            expected=Digests(md5_of(b"aaacccaaa"), crc32c_of(b"aaacccaaa")),
        )
        assert read(store, "a") == b"aaacccaaa" and joined.md5 == md5_of(b"aaacccaaa")
        assert (joined.component_count, joined.content_type) == (3, "text/plain")
        again = store.compose(BUCKET, "all", [ComposeSource("a"), ComposeSource("b")], delete_sources=True)
        assert again.component_count == 4
        assert list_all(store) == ["all", "c"] and read(store, "all") == b"aaacccaaabbb"

    def test_a_bad_composition_changes_nothing(self, store: ObjectStore) -> None:
        put(store, "a", b"a")
        for sources in ([], [ComposeSource("a")] * 33):
            with pytest.raises(InvalidArgument):
                store.compose(BUCKET, "b", sources)
        with pytest.raises(InvalidArgument):
            store.compose(BUCKET, "b", [ComposeSource("a")], expected=Digests(md5=md5_of(b"b")), delete_sources=True)
        assert list_all(store) == ["a"]
