"""Requests shared out to versions, and taken back: no processes, no chance, no time."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from enginehouse.core.names import VersionName
from enginehouse.serving.traffic import RollBack, Split, Traffic, Verdict
from enginehouse.serving.types import ServedVersion


def traffic(**shares: int) -> Traffic:
    """A split with v1 as base; the draws go through [0, 1) evenly."""
    versions = {
        name: ServedVersion(VersionName("p", "m", name), name, Path(), "SCIKIT_LEARN", Path(sys.executable))
        for name in shares
    }
    draws = itertools.cycle([number / 100 for number in range(100)])
    return Traffic(Split(shares, "v1", versions), lambda: next(draws))


def observe(split: Traffic, version_id: str, count: int, *, failed: int = 0, seconds: float = 0.01) -> list[Verdict]:
    """So many requests, the first of which failed; the verdicts."""
    found = [split.observe(version_id, failed=number < failed, seconds=seconds) for number in range(count)]
    return [each for each in found if each is not None]


def test_shares_are_kept() -> None:
    split = traffic(v1=70, v2=25, v3=5)
    chosen = [split.choose(lambda _uid: True) for _ in range(100)]
    assert {name: chosen.count(name) for name in split.split.shares} == {"v1": 70, "v2": 25, "v3": 5}


def test_a_version_that_is_not_ready_has_no_share_yet() -> None:
    split = traffic(v1=50, v2=50)
    assert {split.choose(lambda uid: uid == "v1") for _ in range(100)} == {"v1"}


def test_all_but_the_base_may_be_elsewhere() -> None:
    split = traffic(v1=0, v2=100)
    assert {split.choose(lambda _uid: True) for _ in range(100)} == {"v2"}


def test_errors_take_a_version_back_once() -> None:
    split = traffic(v1=50, v2=50)
    assert not observe(split, "v1", 100, failed=2)
    assert not observe(split, "v2", 49, failed=49)
    [verdict] = observe(split, "v2", 50, failed=50)
    assert verdict.version_id == "v2"
    assert verdict.reason.startswith("100% of the last 50 requests failed, of v1 2%")
    assert {split.choose(lambda _uid: True) for _ in range(100)} == {"v1"}
    assert not observe(split, "v2", 50, failed=50)


def test_a_version_that_fails_as_the_base_does_stays() -> None:
    split = traffic(v1=50, v2=50)
    observe(split, "v1", 100, failed=30)
    assert not any(split.observe("v2", failed=number % 3 == 0, seconds=0.01) for number in range(100))


def test_a_slow_version_is_taken_back() -> None:
    split = traffic(v1=50, v2=50)
    observe(split, "v1", 100, seconds=0.010)
    assert not observe(traffic(v1=50, v2=50), "v2", 100, seconds=9.0)  # nothing to compare it with
    [verdict] = observe(split, "v2", 60, seconds=0.050)
    assert verdict.reason.startswith("its 95th percentile is 50.0 ms, that of v1 10.0 ms")


def test_slower_within_the_limits_is_not_slow() -> None:
    split = traffic(v1=50, v2=50)
    observe(split, "v1", 100, seconds=0.010)
    assert not observe(split, "v2", 100, seconds=0.019)
    quick = traffic(v1=50, v2=50)
    observe(quick, "v1", 100, seconds=0.0005)
    assert not observe(quick, "v2", 100, seconds=0.004)


def test_limits_are_the_owners() -> None:
    assert RollBack(max_error_increase=0.01, min_requests=5).max_latency_factor == 2.0
