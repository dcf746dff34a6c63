"""Listing against a naive model, over names that hypothesis thinks of."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from enginehouse.storage.listing import name_after_prefix
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.storage.helpers import list_entries, naive_listing, put

# Few letters, so that prefixes and delimiters meet; among them the ends of the UTF-8 lengths and the surrogate gap.
ALPHABET = "ab/\x01\x7f\x80߿ࠀ\ud7ff\ue000\uffff\U00010000\U0010ffff"
NAMES = st.text(ALPHABET, min_size=1, max_size=5)
BITS = st.text(ALPHABET, max_size=2)
numbers = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalObjectStore]:
    store = LocalObjectStore(tmp_path_factory.mktemp("objects"), FakeClock())
    yield store
    store.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.sets(NAMES, max_size=12),
    prefix=BITS,
    delimiter=BITS,
    start_offset=BITS,
    end_offset=BITS,
    include_trailing_delimiter=st.booleans(),
    max_results=st.integers(1, 5),
)
def test_listing_agrees_with_a_naive_model(
    store: LocalObjectStore,
    names: set[str],
    prefix: str,
    delimiter: str,
    start_offset: str,
    end_offset: str,
    include_trailing_delimiter: bool,
    max_results: int,
) -> None:
    bucket = f"bucket-{next(numbers)}"
    store.create_bucket(bucket)
    for name in names:
        put(store, name, bucket=bucket)
    query = {
        "prefix": prefix,
        "delimiter": delimiter,
        "start_offset": start_offset,
        "end_offset": end_offset,
        "include_trailing_delimiter": include_trailing_delimiter,
    }
    found, prefixes, sizes = list_entries(store, bucket=bucket, max_results=max_results, **query)
    assert (found, prefixes) == naive_listing(sorted(names), **query)
    assert all(0 < size <= max(max_results, 2) for size in sizes[:-1])


@given(prefix=NAMES, other=st.text(max_size=6))
@example(prefix="a\U0010ffff", other="b")
@example(prefix="\ud7ff", other="\ue000")
def test_the_name_after_a_prefix_is_the_first_behind_all_that_begin_with_it(prefix: str, other: str) -> None:
    assume(prefix.strip("\U0010ffff"))
    after = name_after_prefix(prefix)
    assert after is not None
    assert (prefix + other).encode() < after.encode()
    # Nothing lies between: a name before `after` that isn't before the prefix begins with it.
    assert other.startswith(prefix) or other < prefix or other >= after


def test_no_name_follows_a_prefix_of_last_code_points() -> None:
    assert name_after_prefix("\U0010ffff\U0010ffff") is None
    assert name_after_prefix("") is None
