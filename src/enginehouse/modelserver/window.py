"""How long a batch stays open for more requests.

A batch costs the model's fixed price once, so company is worth a wait, but only as long as it is likely to come and
the wait is short against the call. Both are learned for each signature: how many requests of it the last batches had
(a client that waits for its answer asks again as soon as it has it), and how long its calls took. A lone client never
waits, and what a slow signature takes makes nobody wait who asks for a quick one.

Each batch is closed for one of three reasons:

    full       a signature has as many rows as a call may have
    idle       all that were to be expected are there, and nobody else
    deadline   it has waited for a share of the time that the calls of its quickest signature take
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from enginehouse.modelserver.batcher import Batch

_SHARE = 0.5
_LONGEST_S = 0.002
_MEMORY = 0.2
"""Weight of the last batch in the averages."""
_USUAL = 0.9
"""A batch with this share of the usual number of requests waits for no more."""


class Usual:
    """What the last batches had of a signature."""

    __slots__ = ("n_requests", "seconds")

    def __init__(self) -> None:
        self.n_requests = 1.0
        self.seconds = 0.0

    def learn(self, n_requests: int, seconds: float) -> None:
        self.n_requests += _MEMORY * (n_requests - self.n_requests)
        self.seconds += _MEMORY * (seconds - self.seconds)


class Window:
    """Decides, batch by batch, whether to wait.

    Args:
        clock: seconds, rising.
        max_rows: of one call.
        on_close: told the reason, batch by batch.
    """

    def __init__(self, clock: Callable[[], float], *, max_rows: int, on_close: Callable[[str], None]) -> None:
        self._clock = clock
        self._on_close = on_close
        self._max_rows = max_rows
        self._usual: dict[str, Usual] = defaultdict(Usual)
        self._opened_s = 0.0
        self._n_before = 0

    def open(self) -> None:
        """A batch begins."""
        self._opened_s = self._clock()
        self._n_before = -1

    def is_open(self, batch: Batch) -> bool:
        """Whether to look for more. Asked again after every look."""
        n_before, self._n_before = self._n_before, batch.n_requests
        is_usual = batch.n_requests == n_before
        patience_s = _LONGEST_S if batch.sizes else 0.0
        for signature, size in batch.sizes.items():
            usual = self._usual[signature]
            if size.n_rows >= self._max_rows:
                return self._close("full")
            is_usual = is_usual and size.n_requests >= usual.n_requests * _USUAL
            patience_s = min(patience_s, usual.seconds * _SHARE)
        if is_usual:
            return self._close("idle")
        if self._clock() - self._opened_s - batch.decode_s >= patience_s:  # decoding is no waiting
            return self._close("deadline")
        return True

    def answered(self, signature: str, n_requests: int, seconds: float) -> None:
        """The requests of a signature in a batch took so long."""
        self._usual[signature].learn(n_requests, seconds)

    def usual_s(self, signature: str) -> float:
        """What the requests of a signature in a batch usually take."""
        return self._usual[signature].seconds

    def _close(self, reason: str) -> bool:
        self._on_close(reason)
        return False
