"""The lease of a reconciler: held by one, renewed in time, given back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.metadata.holding import LEASE_S, HeldLease
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[SqlMetadataStore]:
    store = SqlMetadataStore.open_sqlite(tmp_path / "metadata.sqlite3", clock)
    yield store
    store.close()


def test_a_lease_is_renewed_in_time_and_nobody_else_gets_it(store: SqlMetadataStore, clock: FakeClock) -> None:
    mine, other = (HeldLease(store, clock, "reconcilers/jobs") for _ in range(2))
    assert mine.hold() and not other.hold()
    first = mine.current
    clock.advance(LEASE_S / 2 - 1)
    assert mine.hold() and mine.current == first
    clock.advance(2)
    assert mine.hold() and mine.current != first
    clock.advance(LEASE_S - 1)
    assert not other.hold() and other.current is None


def test_a_lease_that_was_given_back_or_has_run_out_is_free(store: SqlMetadataStore, clock: FakeClock) -> None:
    mine, other = (HeldLease(store, clock, "reconcilers/jobs") for _ in range(2))
    assert mine.hold()
    mine.release()
    assert mine.current is None and other.hold() and not mine.hold()
    clock.advance(LEASE_S + 1)
    assert mine.hold()
