"""Contract tests of resumable uploads."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from enginehouse.core.errors import (
    ConditionNotMet,
    InvalidArgument,
    NotFound,
    OutOfRange,
)
from enginehouse.storage.base import (
    Digests,
    ObjectAttributes,
    ObjectStore,
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


class UploadContract(StoreFixtures):
    """An upload goes on where it stopped, whatever stopped it."""

    def test_an_upload_comes_in_pieces_and_survives_reopening(
        self, store: ObjectStore, open_store: Callable[[], ObjectStore]
    ) -> None:
        data = random.Random(3).randbytes(1_000_000)
        attributes = ObjectAttributes(content_type="text/csv", metadata={"a": "1"})
        upload_id = store.create_upload(BUCKET, "x", attributes=attributes, size_bytes=len(data)).upload_id
        assert store.get_upload(upload_id).offset == 0
        assert store.append_upload(upload_id, 0, data[:300_000]) == 300_000
        again = open_store()
        status = again.get_upload(upload_id)
        assert (status.bucket, status.name, status.offset, status.size_bytes) == (BUCKET, "x", 300_000, 1_000_000)
        assert status.result is None and list_all(again) == []
        assert again.append_upload(upload_id, 100_000, data[100_000:700_000]) == 700_000
        assert again.append_upload(upload_id, 0, data[:10]) == 700_000
        with pytest.raises(OutOfRange):
            again.append_upload(upload_id, 700_001, b"x")
        with pytest.raises(OutOfRange):
            again.finish_upload(upload_id, size_bytes=1_000_000)
        again.append_upload(upload_id, 700_000, data[700_000:])
        info = again.finish_upload(upload_id, size_bytes=1_000_000, expected=Digests(md5_of(data), crc32c_of(data)))
        assert again.finish_upload(upload_id, size_bytes=1_000_000) == info
        assert (info.md5, info.crc32c, info.attributes) == (md5_of(data), crc32c_of(data), attributes)
        assert read(again, "x") == data
        with pytest.raises(OutOfRange):
            again.append_upload(upload_id, 1_000_000, b"x")
        again.close()
        last = open_store()
        assert last.get_upload(upload_id).result == info
        assert last.get_upload(upload_id).offset == 1_000_000
        last.close()

    def test_an_empty_upload_makes_an_empty_object(self, store: ObjectStore) -> None:
        upload_id = store.create_upload(BUCKET, "x").upload_id
        assert store.finish_upload(upload_id, size_bytes=0).md5 == md5_of(b"")
        assert read(store, "x") == b""

    def test_a_cancelled_upload_is_gone(self, store: ObjectStore) -> None:
        upload_id = store.create_upload(BUCKET, "x").upload_id
        store.append_upload(upload_id, 0, b"data")
        store.cancel_upload(upload_id)
        for call in (
            lambda: store.get_upload(upload_id),
            lambda: store.append_upload(upload_id, 4, b"more"),
            lambda: store.finish_upload(upload_id, size_bytes=4),
            lambda: store.cancel_upload(upload_id),
        ):
            with pytest.raises(NotFound):
                call()
        assert list_all(store) == []

    def test_an_upload_that_cannot_be_cured_ends(self, store: ObjectStore) -> None:
        at_begin = store.create_upload(BUCKET, "x", expected=Digests(md5=md5_of(b"other"))).upload_id
        at_end = store.create_upload(BUCKET, "x").upload_id
        late = store.create_upload(BUCKET, "x", preconditions=MUST_NOT_EXIST).upload_id
        for upload_id in (at_begin, at_end, late):
            store.append_upload(upload_id, 0, b"data")
        with pytest.raises(InvalidArgument):
            store.finish_upload(at_begin, size_bytes=4)
        with pytest.raises(InvalidArgument):
            store.finish_upload(at_end, size_bytes=4, expected=Digests(crc32c=crc32c_of(b"other")))
        put(store, "x", b"faster")
        with pytest.raises(ConditionNotMet):
            store.finish_upload(late, size_bytes=4)
        for upload_id in (at_begin, at_end, late):
            with pytest.raises(NotFound):
                store.get_upload(upload_id)
        assert read(store, "x") == b"faster"

    def test_an_upload_of_another_size_than_announced_is_refused(self, store: ObjectStore) -> None:
        upload_id = store.create_upload(BUCKET, "x", size_bytes=5).upload_id
        store.append_upload(upload_id, 0, b"data")
        with pytest.raises(OutOfRange):
            store.finish_upload(upload_id, size_bytes=4)
        store.append_upload(upload_id, 4, b"!")
        assert store.finish_upload(upload_id, size_bytes=5).size_bytes == 5

    def test_a_piece_sent_twice_at_the_same_time_is_stored_once(self, store: ObjectStore) -> None:
        data = random.Random(4).randbytes(400_000)
        upload_id = store.create_upload(BUCKET, "x").upload_id

        def send(_: int) -> None:
            for at in range(0, len(data), 10_000):
                store.append_upload(upload_id, at, data[at : at + 10_000])

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(send, range(3)))
        assert store.finish_upload(upload_id, size_bytes=len(data)).md5 == md5_of(data)
        assert read(store, "x") == data
