"""A clock that stands still until told to go on."""

from __future__ import annotations


class FakeClock:
    """`core.clock.Clock` under the test's control; starts at 2026-01-01T00:00:00Z."""

    def __init__(self, start_ns: int = 1_767_225_600_000_000_000) -> None:
        self._now_ns = start_ns

    def time_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_ns += int(seconds * 1e9)
