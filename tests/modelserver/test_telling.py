"""The ring in which a model server tells of requests: nothing torn, doubled or out of order, and bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver import telling
from enginehouse.modelserver.journal import N_UNTOLD, RING_AT, Journal
from enginehouse.modelserver.telling import Ring, Told

RING_BYTES = 4 * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True, scope="module")
def _small_ring() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telling, "RING_BYTES", RING_BYTES)
        yield


@given(st.lists(st.one_of(st.integers(1, RING_BYTES // 3), st.none()), max_size=60))
def test_what_finds_room_is_taken_in_order_and_the_rest_counted(steps: list[int | None]) -> None:
    fd = Journal.make()
    journal, ours = Journal(fd), Journal(fd)
    put, take = Ring(journal), Ring(ours)
    told: list[bytes] = []
    for number, size in enumerate(steps):
        if size is None:
            assert list(take.take()) == told
            told = []
        else:
            record = os.urandom(1) + bytes([number]) * (size - 1)
            n_untold = ours.words[N_UNTOLD]
            put.prepare(record, 0)
            put.put()
            if ours.words[N_UNTOLD] == n_untold:
                told.append(record)
            else:  # what waits and what is lost at the end of the ring, with a size before each
                assert sum(map(len, told)) + 16 * len(told) + 2 * size + 32 > RING_BYTES
    assert list(take.take()) == told
    os.close(fd)


def test_memory_is_used_for_what_waits_alone() -> None:
    fd = Journal.make()
    ring = Ring(Journal(fd))
    for number in range(100):
        ring.prepare(bytes([number]) * 3000, 0)
        ring.put()
        assert [record[0] for record in ring.take()] == [number]
        used_bytes = os.fstat(fd).st_blocks * 512
        assert used_bytes <= RING_AT + os.sysconf("SC_PAGE_SIZE")
    os.close(fd)


def test_a_record_is_what_was_packed() -> None:
    told = Told(3, 200, 4, 6, 1_700_000_000_123_456_789, 1500, b"\0\xffab", b"answer")
    assert Told.unpack(told.pack()) == told
    without = Told(1, 400, 10, 20, 5, 6)
    assert Told.unpack(without.pack()) == without


def test_what_is_withdrawn_is_not_told() -> None:
    fd = Journal.make()
    ring = Ring(Journal(fd))
    ring.prepare(b"given up", 0)
    ring.withdraw()
    ring.prepare(b"replaced", 1)
    ring.prepare(b"told", 2)
    assert list(ring.take()) == []
    ring.put()
    assert list(ring.take()) == [b"told"]
    os.close(fd)
