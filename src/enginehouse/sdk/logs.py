"""Follow a job's log to its end, across engine restarts.

In: a job id. Out: its entries, each exactly once and in order, since the cursor says what was given already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from enginehouse.core.errors import Unavailable
from enginehouse.sdk.client import Jobs

LONG_POLL_S = 20.0
_RETRY_S = 0.5


def follow(
    jobs: Jobs,
    job_id: str,
    *,
    patience_s: float = 300.0,
    on_lost: Callable[[Unavailable], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """Yield a job's log entries from the first on, until the job has ended and every entry was given.

    Args:
        patience_s: how long the engine may be away; the job itself goes on meanwhile.
        on_lost: told once each time the engine stops answering.
        sleep: waits between two tries, in seconds.

    Raises:
        NotFound: there is no such job.
        Unavailable: no engine answered the first request, or it did not come back.
    """
    cursor, away_s, wait_s = "", 0.0, 0.0
    reached = False
    while True:
        try:
            page = jobs.read_logs(job_id, cursor, wait_s=wait_s)
        except Unavailable as error:
            if not reached or away_s >= patience_s:
                raise
            if away_s == 0.0:
                on_lost(error)
            sleep(_RETRY_S)
            away_s += _RETRY_S
            continue
        reached, away_s, wait_s = True, 0.0, LONG_POLL_S
        yield from page.get("entries", [])
        cursor = page.get("cursor", cursor)
        if page.get("ended"):
            return
