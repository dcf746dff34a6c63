"""How long a batch stays open for more requests.

A batch costs the model's fixed price once, so company is worth a wait, but only as long as it is likely to come and
the wait is short against the call. Both are learned: how many requests the last batches had (a client that waits for
its answer asks again as soon as it has it), and how long they took. A lone client never waits.

Each batch is closed for one of three reasons:

    full       as many requests as a batch may have
    idle       all that were to be expected are there, and nobody else
    deadline   it has waited for a share of the time that a batch takes
"""

from __future__ import annotations

from collections.abc import Callable

MAX_REQUESTS = 1024
_SHARE = 0.5
_LONGEST_S = 0.002
_MEMORY = 0.2
"""Weight of the last batch in the averages."""
_USUAL = 0.9
"""A batch with this share of the usual number of requests waits for no more."""


class Window:
    """Decides, batch by batch, whether to wait.

    Args:
        clock: seconds, rising.
        max_requests: of one batch.
        on_close: told the reason, batch by batch.
    """

    def __init__(
        self, clock: Callable[[], float], *, max_requests: int = MAX_REQUESTS, on_close: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._on_close = on_close
        self._max_requests = max_requests
        self._usual_requests = 1.0
        self._usual_s = 0.0
        self._opened_s = 0.0
        self._n_before = 0

    def open(self) -> None:
        """A batch has its first requests."""
        self._opened_s = self._clock()
        self._n_before = -1

    def is_open(self, n_requests: int) -> bool:
        """Whether to look for more, with so many requests in the batch. Asked again after every look."""
        n_before, self._n_before = self._n_before, n_requests
        if n_requests >= self._max_requests:
            return self._close("full")
        if n_requests == n_before and n_requests >= self._usual_requests * _USUAL:
            return self._close("idle")
        if self._clock() - self._opened_s >= min(self._usual_s * _SHARE, _LONGEST_S):
            return self._close("deadline")
        return True

    def answered(self, n_requests: int, seconds: float) -> None:
        """A batch of so many requests took so long."""
        self._usual_requests += _MEMORY * (n_requests - self._usual_requests)
        self._usual_s += _MEMORY * (seconds - self._usual_s)

    def _close(self, reason: str) -> bool:
        self._on_close(reason)
        return False
