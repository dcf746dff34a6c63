"""Which queued jobs may start now, and why the others wait.

Strict order: higher priority first, then first come, first served. One job is one unit of the engine's capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.metadata.records import JobRecord


@dataclass(frozen=True)
class Decision:
    """What was decided about a queued job. `reason` is shown to its owner; `position` counts the jobs before it."""

    job: JobRecord
    admitted: bool
    reason: str
    position: int


def decide(active: Sequence[JobRecord], *, max_running_jobs: int) -> list[Decision]:
    """Go through the queue once.

    Args:
        active: all jobs that have not ended, oldest first.
        max_running_jobs: how many may be past the queue at the same time.

    Returns:
        One decision per queued job, in the order of the queue.
    """
    queued = sorted((job for job in active if job.state == "QUEUED"), key=lambda job: -job.priority)
    running = len(active) - len(queued)
    decisions = []
    for position, job in enumerate(queued):
        if running < max_running_jobs:
            running += 1
            decisions.append(Decision(job, True, f"{running} of {max_running_jobs} places taken", 0))
        else:
            ahead = position - sum(d.admitted for d in decisions)
            reason = f"All {max_running_jobs} places (max_running_jobs) are taken; {ahead} queued job(s) are ahead."
            decisions.append(Decision(job, False, reason, ahead + 1))
    return decisions
