"""Which of the waiting jobs may start now, which running ones give way, and why the others wait: a pure function.

The order is strict: higher priority first, then first come, first served. A job starts whole or not at all. While the
first one that waits for room (the head) can't start, others pass it only where they leave room for it, whatever ends
first: used + head + other must fit in every dimension that the other needs. So nothing delays the head, and nobody
has to guess how long a job will run. A job that can never start, or whose project has used up its quota, is no head
for jobs of others; within the project, others leave it in the same way what it needs of the quota.

Jobs of one project that ask for the same stand in one line: where one of them can't start, nobody behind it can.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from enginehouse.core.names import JobName
from enginehouse.jobs.waiting import Amounts, Line

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
    """A job past the queue, as the queue sees it.

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
        head: the first that waits for room; None if nobody does.
        head_reason: why the head waits.
        kept: lines of which nobody can start, for a reason of their own.
        never: those of `kept` that can't start as things are.
    """

    start: Sequence[JobName]
    give_way: Mapping[JobName, str]
    head: JobName | None
    head_reason: str
    kept: Mapping[Line, str]
    never: frozenset[Line]


def decide(
    running: Iterable[Claim],
    lines: Iterable[Line],
    capacity: Amounts,
    quota_of: Mapping[str, Amounts],
) -> Decisions:
    """Go through the queue once: its lines side by side, always on with the one whose next job is the first.

    Args:
        running: all jobs past the queue, in the order in which they started.
        lines: all that wait.
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
    kept: dict[Line, str] = {}
    never: set[Line] = set()
    head: Claim | None = None
    head_reason = ""
    heads: dict[str, Line] = {}
    """The line of the first job of each project that its quota keeps."""
    ahead = [(line.places[0], 0, line) for line in lines]  # the place, its index in the line, the line
    heapify(ahead)
    while ahead:
        (priority, _sequence, name), index, line = ahead[0]
        demand, project = line.demand, line.project
        quota = quota_of.get(project, quota_of.get("*", {}))
        if index == 0 and (reason := _never(demand, capacity, quota, project)):
            kept[line] = reason
            never.add(line)
        elif lacking := _lacking(demand, used_by[project], quota):
            kept[line] = _quota_reason(project, lacking[0], quota)
            heads.setdefault(project, line)
        elif _delays(heads.get(project), demand, used_by[project], quota) or _delays(head, demand, used, capacity):
            pass
        elif lacking := _lacking(demand, used, capacity):
            head, head_reason = Claim(name, demand, -priority), _room_reason(demand, lacking, used, capacity)
        else:
            start.append(name)
            used.update(demand)
            used_by[project].update(demand)
            if index + 1 < len(line.places):
                heapreplace(ahead, (line.places[index + 1], index + 1, line))
                continue
        heappop(ahead)
    give_way = _giving_way(head, running, used, capacity) if head is not None else {}
    if give_way:
        head_reason = f"Waits for {', '.join(name.job_id for name in give_way)} to give way."
    return Decisions(start, give_way, head.name if head is not None else None, head_reason, kept, frozenset(never))


def _lacking(demand: Amounts, used: Amounts, limits: Amounts) -> list[str]:
    """The dimensions in which `demand` doesn't fit; what it doesn't need can't keep it."""
    needed = ((each, demand.get(each, 0), limit) for each, limit in limits.items())
    return [each for each, amount, limit in needed if amount > 0 and amount + used.get(each, 0) > limit]


def _delays(head: Claim | Line | None, demand: Amounts, used: Counter[str], limits: Amounts) -> bool:
    """Whether `demand` would take what is being kept for `head`."""
    return head is not None and bool(_lacking(demand, used + Counter(head.demand), limits))


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
