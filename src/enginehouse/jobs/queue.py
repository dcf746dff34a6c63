"""Which of the waiting jobs may start now, which running ones give way, and why the others wait: a pure function.

The order is strict: higher priority first, then first come, first served. A job starts whole or not at all. While the
first one that waits for room (the head) can't start, others pass it only where they leave room for it, whatever ends
first: used + head + other must fit in every dimension that the other needs. So nothing delays the head, and nobody
has to guess how long a job will run. A job that can never start, or whose project has used up its quota, is no head
for jobs of others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from enginehouse.core.names import JobName

Amounts = Mapping[str, float]
"""Dimension → how much: "jobs", "cpus", "memory" (GiB), "gpus", "ml_units" (training units per hour)."""

DIMENSIONS = {
    "jobs": "jobs at a time",
    "cpus": "CPUs",
    "memory": "GiB of memory",
    "gpus": "GPUs",
    "ml_units": "training units",
}
"""The dimensions and what people call them."""

ITS_TURN = "Waits for its turn: jobs of higher priority, or that came earlier, go first."


@dataclass(frozen=True)
class Claim:
    """A job as the queue sees it.

    Attributes:
        demand: what it takes as long as it runs.
        priority: higher goes first.
        gives_way: it may be stopped and queued again for one of higher priority.
        is_leaving: it is being stopped; what it takes will be free.
    """

    name: JobName
    demand: Amounts
    priority: int = 0
    gives_way: bool = False
    is_leaving: bool = False


@dataclass(frozen=True)
class Decisions:
    """What is to be done.

    Attributes:
        start: jobs that leave the queue now.
        give_way: running jobs that are to be stopped and queued again → why.
        waiting: jobs that stay → why, in the order of the queue.
        never: those of `waiting` that can't start as things are.
    """

    start: Sequence[JobName]
    give_way: Mapping[JobName, str]
    waiting: Mapping[JobName, str]
    never: frozenset[JobName]


def decide(
    running: Iterable[Claim],
    queued: Iterable[Claim],
    capacity: Amounts,
    quota_of: Mapping[str, Amounts],
) -> Decisions:
    """Go through the queue once.

    Args:
        running: all jobs past the queue, in the order in which they started.
        queued: all that wait, in the order in which they came.
        capacity: what there is, for the dimensions that count.
        quota_of: project → what it may use at a time, for the dimensions that are limited; "*" for all others.
    """
    running = list(running)
    used: Counter[str] = Counter()
    used_by: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for claim in running:
        used.update(claim.demand)
        used_by[claim.name.project].update(claim.demand)
    start: list[JobName] = []
    waiting: dict[JobName, str] = {}
    never: set[JobName] = set()
    head: Claim | None = None
    heads: dict[str, Claim] = {}
    """The first job of each project that its quota keeps."""
    nothing_fits = False  # not even a place is left beside the head
    for claim in sorted(queued, key=lambda claim: -claim.priority):
        name, project = claim.name, claim.name.project
        if nothing_fits:
            waiting[name] = ITS_TURN
            continue
        quota = quota_of.get(project, quota_of.get("*", {}))
        if reason := _never(claim.demand, capacity, quota, project):
            waiting[name] = reason
            never.add(name)
            continue
        lacking = _lacking(claim.demand, used_by[project], quota)
        if lacking or (project in heads and _lacking(claim.demand, used_by[project] + _of(heads[project]), quota)):
            waiting[name] = _quota_reason(project, lacking[0], quota) if lacking else ITS_TURN
            heads.setdefault(project, claim)
            continue
        lacking = _lacking(claim.demand, used, capacity)
        if lacking or (head is not None and _lacking(claim.demand, used + _of(head), capacity)):
            if head is None:
                head = claim
                waiting[name] = _room_reason(claim.demand, lacking, used, capacity)
                nothing_fits = bool(_lacking({"jobs": 1}, used + _of(head), capacity))
            else:
                waiting[name] = ITS_TURN
            continue
        start.append(name)
        used.update(claim.demand)
        used_by[project].update(claim.demand)
    give_way = _giving_way(head, running, used, capacity) if head is not None else {}
    if head is not None and give_way:
        waiting[head.name] = f"Waits for {', '.join(name.job_id for name in give_way)} to give way."
    return Decisions(start, give_way, waiting, frozenset(never))


def _of(claim: Claim) -> Counter[str]:
    return Counter(claim.demand)


def _lacking(demand: Amounts, used: Amounts, limits: Amounts) -> list[str]:
    """The dimensions in which `demand` doesn't fit; what it doesn't need can't keep it."""
    needed = ((each, demand.get(each, 0), limit) for each, limit in limits.items())
    return [each for each, amount, limit in needed if amount > 0 and amount + used.get(each, 0) > limit]


def _giving_way(head: Claim, running: Sequence[Claim], used: Counter[str], capacity: Amounts) -> dict[JobName, str]:
    """The fewest that make room for `head`: the least important first, of these the latest. None if all don't do."""
    used = used.copy()
    for claim in running:
        if claim.is_leaving:
            used.subtract(claim.demand)
    if not _lacking(head.demand, used, capacity):
        return {}  # room is being made already
    able = [claim for claim in running if claim.gives_way and not claim.is_leaving and claim.priority < head.priority]
    chosen: list[Claim] = []
    able.reverse()
    for claim in sorted(able, key=lambda claim: claim.priority):
        lacking = _lacking(head.demand, used, capacity)
        if any(claim.demand.get(each, 0) for each in lacking):
            used.subtract(claim.demand)
            chosen.append(claim)
    if _lacking(head.demand, used, capacity):
        return {}
    for claim in reversed(chosen):  # spare whom a later choice made needless, the most important first
        used.update(claim.demand)
        if _lacking(head.demand, used, capacity):
            used.subtract(claim.demand)
        else:
            chosen.remove(claim)
    reason = f"It gives way to {head.name.job_id}, whose priority is higher ({head.priority})."
    return {claim.name: reason for claim in chosen}


def _never(demand: Amounts, capacity: Amounts, quota: Amounts, project: str) -> str:
    """Why it can't start even when nothing runs; empty if it can."""
    for each in _lacking(demand, {}, quota):
        return (
            f"It asks for {demand[each]:g} {DIMENSIONS[each]}, and the quota of the project {project} is "
            f"{quota[each]:g} (setting quotas). It can't start until that is raised."
        )
    for each in _lacking(demand, {}, capacity):
        has = f"has {capacity[each]:g}" if capacity[each] else "has none"
        text = f"It asks for {demand[each]:g} {DIMENSIONS[each]}, and this engine {has} (setting {each})."
        unless = ", or its project may run without (setting allow_missing_accelerators)" if each == "gpus" else ""
        return f"{text} It can't start until that changes{unless}."
    return ""


def _quota_reason(project: str, dimension: str, quota: Amounts) -> str:
    limit = f"{quota[dimension]:g} {DIMENSIONS[dimension]}"
    return f"The quota of the project {project} is used up: {limit} (setting quotas)."


def _room_reason(demand: Amounts, lacking: Sequence[str], used: Amounts, capacity: Amounts) -> str:
    parts = []
    for each in lacking:
        if each == "jobs":
            parts.append(f"all {capacity[each]:g} places for jobs (setting max_running_jobs) are taken")
        else:
            free = max(0.0, capacity[each] - used.get(each, 0))
            parts.append(f"it needs {demand[each]:g} {DIMENSIONS[each]}, and {free:g} of {capacity[each]:g} are free")
    text = "; ".join(parts)
    return f"Next in the queue; {text}."
