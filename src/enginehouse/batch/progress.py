"""How far a job is, as lines for its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from enginehouse.batch.write import Counts

_FIRST_S = 2.0
_EVERY_S = 10.0


class Progress:
    """Sums up what workers tell.

    Args:
        total_bytes: of all splits.
        done_bytes, done: of those that an earlier start has finished.
    """

    def __init__(
        self,
        total_bytes: int,
        done_bytes: int,
        done: Counts,
        *,
        n_splits: int,
        n_done: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_bytes = total_bytes
        self._before_bytes, self._bytes = done_bytes, 0
        self._before, self.counts = done, done
        self._n_splits, self._n_done = n_splits, n_done
        self._monotonic = monotonic
        self._began: float | None = None
        self._due = 0.0

    def take(self, message: dict[str, Any]) -> None:
        """Count what one line of a worker says; the clock runs from the first model that is loaded."""
        if "ready" in message and self._began is None:
            self._began = self._monotonic()
            self._due = self._began + _FIRST_S
        if "bytes" in message:
            self._bytes += message["bytes"]
            self.counts += Counts(message["predictions"], message["errors"])
        if "done" in message:
            self._n_done += 1

    @property
    def is_due(self) -> bool:
        """Whether it is time for a line."""
        return self._began is not None and self._monotonic() >= self._due

    def line(self, workers: int) -> str:
        """`1,234 predictions (12.3 %), 45,678 instances/s, 41 s left, …`; the next one is due in a while."""
        now = self._monotonic()
        self._due = now + _EVERY_S
        seconds = max(1e-9, now - (self._began or now))
        rows = self.counts.predictions + self.counts.errors - self._before.predictions - self._before.errors
        share = (self._before_bytes + self._bytes) / max(1, self._total_bytes)
        left_bytes = max(0, self._total_bytes - self._before_bytes - self._bytes)
        left = f"{_duration(left_bytes * seconds / self._bytes)} left" if self._bytes else "just begun"
        return "{} ({:.1f} %), {} instances/s, {}; {} of {} splits done, {} worker(s).".format(
            describe_counts(self.counts),
            100 * min(1.0, share),
            f"{rows / seconds:,.0f}",
            left,
            self._n_done,
            self._n_splits,
            workers,
        )


def describe_counts(counts: Counts) -> str:
    """`1,234 predictions and 5 errors`."""
    return f"{counts.predictions:,} predictions and {counts.errors:,} errors"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return "%.0f min" % (seconds / 60) if seconds < 5400 else "%.1f h" % (seconds / 3600)
