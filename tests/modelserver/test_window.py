"""When a batch closes: by number, by time, or since nobody else is to be expected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver.window import Window

Learned = tuple[Window, "Ticking", list[str]]


class Ticking:
    """A clock that a look at it moves on."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


def looks(window: Window, arrivals: list[int]) -> int:
    """How often the window lets one look, when a look finds so many new requests (none after the last)."""
    n_requests, n_looks = 1, 0
    window.open()
    while window.is_open(n_requests):
        n_requests += arrivals[n_looks] if n_looks < len(arrivals) else 0
        n_looks += 1
    return n_looks


def learned(requests: int, seconds: float, **options: int) -> Learned:
    clock = Ticking(1e-6)
    closed: list[str] = []
    window = Window(clock, on_close=closed.append, **options)
    for _ in range(50):
        window.answered(requests, seconds)
    return window, clock, closed


def test_a_lone_client_waits_for_one_empty_look() -> None:
    window, _, closed = learned(1, 0.001)
    assert looks(window, []) == 1
    assert closed == ["idle"]


def test_a_batch_waits_for_the_usual_company_and_no_longer() -> None:
    window, _, closed = learned(8, 0.001)
    assert looks(window, [0, 3, 0, 4]) == 5
    assert closed == ["idle"]


def test_a_wait_is_at_most_half_of_what_a_batch_takes() -> None:
    window, clock, closed = learned(8, 0.001)
    looks(window, [])
    assert closed == ["deadline"]
    assert 0.0005 <= clock.now_s < 0.00052


def test_a_slow_model_makes_nobody_wait_for_more_than_two_milliseconds() -> None:
    window, clock, _ = learned(8, 10.0)
    looks(window, [])
    assert clock.now_s < 0.0021


def test_a_full_batch_is_closed_at_once() -> None:
    window, _, closed = learned(8, 0.001, max_requests=4)
    assert looks(window, [3]) == 1
    assert closed == ["full"]


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 100)), max_size=20),
    st.lists(st.integers(0, 50), max_size=20),
)
def test_every_batch_closes_in_time_for_one_reason(past: list[tuple[int, float]], arrivals: list[int]) -> None:
    clock = Ticking(1e-4)
    closed: list[str] = []
    window = Window(clock, on_close=closed.append)
    for n_requests, seconds in past:
        window.answered(n_requests, seconds)
    looks(window, arrivals)
    assert len(closed) == 1
    assert clock.now_s <= 0.0025
