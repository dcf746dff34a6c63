"""When a batch closes: by number, by time, or since nobody else is to be expected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver.batcher import Batch, Size
from enginehouse.modelserver.window import Window

Learned = tuple[Window, "Ticking", list[str]]


class Ticking:
    """A clock that a look at it moves on."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


def batch_of(sizes: dict[str, tuple[int, int]], decode_s: float = 0.0) -> Batch:
    """A batch with so many requests and rows, by signature."""
    adapter: Any = None  # nothing is run here
    batch = Batch(adapter, "predictions")
    batch.sizes = {signature: Size(*size) for signature, size in sizes.items()}
    batch.n_requests = sum(n_requests for n_requests, _ in sizes.values())
    batch.decode_s = decode_s
    return batch


def looks(window: Window, arrivals: list[int], signature: str = "s", rows: int = 1, decode_s: float = 0.0) -> int:
    """How often the window lets one look, when a look finds so many new requests (none after the last)."""
    n_requests, n_looks = 1, 0
    window.open()
    while window.is_open(batch_of({signature: (n_requests, n_requests * rows)}, decode_s * n_requests)):
        n_requests += arrivals[n_looks] if n_looks < len(arrivals) else 0
        n_looks += 1
    return n_looks


def learned(usual: dict[str, tuple[int, float]], max_rows: int = 1024) -> Learned:
    """A window that has seen many batches of so many requests, and seconds, by signature."""
    clock = Ticking(1e-6)
    closed: list[str] = []
    window = Window(clock, max_rows=max_rows, on_close=closed.append)
    for _ in range(50):
        for signature, (requests, seconds) in usual.items():
            window.answered(signature, requests, seconds)
    return window, clock, closed


def test_a_lone_client_waits_for_one_empty_look() -> None:
    window, _, closed = learned({"s": (1, 0.001)})
    assert looks(window, []) == 1
    assert closed == ["idle"]


def test_a_batch_waits_for_the_usual_company_and_no_longer() -> None:
    window, _, closed = learned({"s": (8, 0.001)})
    assert looks(window, [0, 3, 0, 4]) == 5
    assert closed == ["idle"]


def test_a_wait_is_at_most_half_of_what_a_batch_takes() -> None:
    window, clock, closed = learned({"s": (8, 0.001)})
    looks(window, [])
    assert closed == ["deadline"]
    assert 0.0005 <= clock.now_s < 0.00052


def test_decoding_is_no_waiting() -> None:
    window, clock, closed = learned({"s": (8, 0.001)})
    looks(window, [], decode_s=0.0002)
    assert closed == ["deadline"]
    assert 0.0007 <= clock.now_s < 0.00072


def test_a_slow_model_makes_nobody_wait_for_more_than_two_milliseconds() -> None:
    window, clock, _ = learned({"s": (8, 10.0)})
    looks(window, [])
    assert clock.now_s < 0.0021


def test_a_batch_with_as_many_rows_as_a_call_may_have_is_closed_at_once() -> None:
    window, _, closed = learned({"s": (8, 0.001)}, max_rows=8)
    assert looks(window, [3], rows=2) == 1
    assert closed == ["full"]


def test_each_signature_has_its_own_company_and_time() -> None:
    usual = {"slow": (8, 0.003), "quick": (1, 0.0001)}
    for signature, reason, waited_s in (
        ("slow", "deadline", 0.0015),
        ("quick", "idle", 0.0),
        ("new", "deadline", 0.0),
    ):
        window, clock, closed = learned(usual)
        looks(window, [], signature)
        assert closed == [reason]
        assert waited_s <= clock.now_s < waited_s + 0.00002
        assert window.usual_s(signature) == pytest.approx(usual.get(signature, (0, 0.0))[1], rel=0.01)


def test_together_they_wait_for_all_company_but_no_longer_than_the_quickest_allows() -> None:
    both = batch_of({"slow": (8, 8), "quick": (2, 2)})
    for usual_s, missing, reason, waited_s in ((0.001, 0, "idle", 0.0), (0.001, 4, "deadline", 0.0005)):
        window, clock, closed = learned({"slow": (8 + missing, 0.003), "quick": (2, usual_s)})
        window.open()
        while window.is_open(both):
            pass
        assert closed == [reason]
        assert waited_s <= clock.now_s < waited_s + 0.00002


def test_requests_that_need_no_call_wait_for_nothing() -> None:
    window, _, closed = learned({"s": (8, 0.001)})
    window.open()
    refused = batch_of({})
    refused.n_requests = 3
    assert not window.is_open(refused)
    assert closed == ["deadline"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2000), st.floats(0, 100)), max_size=20),
    st.lists(st.integers(0, 50), max_size=20),
    st.sampled_from("abc"),
)
def test_every_batch_closes_in_time_for_one_reason(
    past: list[tuple[str, int, float]], arrivals: list[int], signature: str
) -> None:
    clock = Ticking(1e-4)
    closed: list[str] = []
    window = Window(clock, max_rows=1024, on_close=closed.append)
    for each, n_requests, seconds in past:
        window.answered(each, n_requests, seconds)
    looks(window, arrivals, signature)
    assert len(closed) == 1
    assert clock.now_s <= 0.0025
