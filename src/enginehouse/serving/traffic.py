"""A model's requests shared out to several of its versions, and when that is taken back.

No processes and no HTTP here: `router` asks which version gets a request and tells how it went; the registry stores
the split and, when a version is found worse than the base, takes it back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from enginehouse.serving.types import ServedVersion

_WINDOW = 500
_SMALLEST_DIFFERENCE_S = 0.005
"""A version is not slow for being later by less than this."""


@dataclass(frozen=True)
class RollBack:
    """When a split is taken back.

    Args:
        max_error_increase: a version's share of failed requests may be higher than the base's by so much.
        max_latency_factor: its 95th percentile may be so many times the base's.
        min_requests: of each, before it is judged.
    """

    max_error_increase: float = 0.05
    max_latency_factor: float = 2.0
    min_requests: int = 50


@dataclass(frozen=True)
class Split:
    """How a model's requests are shared out.

    Args:
        shares: percent by version id; 100 together.
        base: the default version: gets what another one can't answer, and everything after a roll-back.
        versions: all of `shares`, to send requests to.
    """

    shares: Mapping[str, int]
    base: str
    versions: Mapping[str, ServedVersion]
    roll_back: RollBack = field(default_factory=RollBack)


class Verdict(NamedTuple):
    """A version that is worse than the base, and in what."""

    version_id: str
    reason: str


class _Seen:
    """The last requests of one version."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=_WINDOW)
        self._seconds: deque[float] = deque(maxlen=_WINDOW)

    def __len__(self) -> int:
        return len(self._failed)

    def add(self, failed: bool, seconds: float) -> None:
        self._failed.append(failed)
        self._seconds.append(seconds)

    @property
    def error_rate(self) -> float:
        return sum(self._failed) / len(self._failed)

    @property
    def p95_s(self) -> float:
        return sorted(self._seconds)[int(0.95 * (len(self._seconds) - 1))]


class Traffic:
    """A split in force. One thread.

    Args:
        draw: a number in [0, 1) per request.
    """

    def __init__(self, split: Split, draw: Callable[[], float] = random.random) -> None:
        self.split = split
        self._draw = draw
        self._seen = {version_id: _Seen() for version_id in split.shares}
        self._verdict: Verdict | None = None

    def choose(self, is_ready: Callable[[str], bool]) -> str:
        """The version id for the next request; the base's where the one that is its turn is not ready.

        Args:
            is_ready: whether a version (by uid) can answer at once.
        """
        point = self._draw() * sum(self.split.shares.values())
        chosen = self.split.base
        for version_id, share in self.split.shares.items():
            point -= share
            if point < 0:
                chosen = version_id
                break
        if self._verdict is not None or not is_ready(self.split.versions[chosen].uid):
            return self.split.base
        return chosen

    def observe(self, version_id: str, *, failed: bool, seconds: float) -> Verdict | None:
        """A request went so; a verdict, once, when that shows that a version is worse than the base."""
        seen = self._seen[version_id]
        seen.add(failed, seconds)
        if self._verdict is not None or version_id == self.split.base or len(seen) % 10:
            return None
        self._verdict = self._judge(version_id)
        return self._verdict

    def _judge(self, version_id: str) -> Verdict | None:
        limits, seen, base = self.split.roll_back, self._seen[version_id], self._seen[self.split.base]
        if len(seen) < limits.min_requests:
            return None
        base_rate = base.error_rate if len(base) else 0.0
        if seen.error_rate > base_rate + limits.max_error_increase:
            return Verdict(
                version_id,
                f"{seen.error_rate:.0%} of the last {len(seen)} requests failed, of {self.split.base} "
                f"{base_rate:.0%}; at most {limits.max_error_increase:.0%} more are allowed",
            )
        if len(base) >= limits.min_requests:
            allowed_s = max(base.p95_s * limits.max_latency_factor, base.p95_s + _SMALLEST_DIFFERENCE_S)
            if seen.p95_s > allowed_s:
                return Verdict(
                    version_id,
                    f"its 95th percentile is {seen.p95_s * 1000:.1f} ms, that of {self.split.base} "
                    f"{base.p95_s * 1000:.1f} ms; at most {limits.max_latency_factor:g} times that is allowed",
                )
        return None
