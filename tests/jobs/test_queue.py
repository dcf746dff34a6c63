"""Who may start, who gives way, and what the others are told."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enginehouse.core.names import JobName
from enginehouse.jobs import queue
from enginehouse.jobs.queue import ITS_TURN, Claim
from enginehouse.jobs.waiting import WaitingJobs

_numbers = count()


def claim(
    job_id: str = "", priority: int = 0, *, project: str = "p", gives_way: bool = False, **demand: float
) -> Claim:
    name = JobName(project, job_id or f"job_{next(_numbers)}")
    return Claim(name, {"jobs": 1, **demand}, priority, gives_way)


@dataclass(frozen=True)
class Decisions:
    """What was decided, job by job; `waiting` in the order of the queue."""

    start: list[JobName]
    give_way: Mapping[JobName, str]
    waiting: dict[JobName, str]
    never: set[JobName]


def decide(
    running: Iterable[Claim], queued: Iterable[Claim], capacity: Mapping[str, float], quotas: Mapping[str, Any]
) -> Decisions:
    waiting = WaitingJobs()
    for sequence, each in enumerate(queued):
        waiting.add(each.name, each.demand, priority=each.priority, sequence=sequence, told="")
    decided = queue.decide(running, waiting.lines, capacity, quotas)
    assert list(waiting) == list(dict.fromkeys(waiting)), "nobody stands in two places"
    line_of = {place[2]: line for line in waiting.lines for place in line.places}
    reasons = {name: decided.kept.get(line_of[name], ITS_TURN) for name in waiting if name not in decided.start}
    if decided.head is not None:
        reasons[decided.head] = decided.head_reason
    never = {name for name, line in line_of.items() if line in decided.never}
    return Decisions([*decided.start], decided.give_way, reasons, never)


def started(decisions: Decisions) -> list[str]:
    return [name.job_id for name in decisions.start]


def reasons(decisions: Decisions) -> dict[str, str]:
    return {name.job_id: reason for name, reason in decisions.waiting.items()}


def test_first_come_first_served_within_a_priority() -> None:
    jobs = [claim("low"), claim("high_1", 5), claim("high_2", 5), claim("higher", 7)]
    decisions = decide([], jobs, {"jobs": 2}, {})
    assert started(decisions) == ["higher", "high_1"]
    assert [name.job_id for name in decisions.waiting] == ["high_2", "low"]
    assert "all 2 places for jobs (setting max_running_jobs) are taken" in reasons(decisions)["high_2"]
    assert reasons(decisions)["low"] == ITS_TURN


def test_others_pass_the_head_only_where_they_leave_it_room() -> None:
    running = [claim(gpus=3, cpus=4)]
    queued = [claim("head", gpus=4, cpus=2), claim("no_gpu", cpus=2), claim("one_gpu", gpus=1), claim("cpus", cpus=3)]
    decisions = decide(running, queued, {"gpus": 4, "cpus": 9}, {})
    assert started(decisions) == ["no_gpu"]  # one more CPU would be the head's, and every GPU is
    assert "it needs 4 GPUs, and 1 of 4 are free" in reasons(decisions)["head"]
    assert reasons(decisions)["one_gpu"] == reasons(decisions)["cpus"] == ITS_TURN


def test_what_can_never_start_keeps_nobody() -> None:
    queued = [claim("impossible", 9, gpus=8), claim("greedy", 8, project="small", cpus=9), claim("other")]
    decisions = decide([], queued, {"jobs": 1, "gpus": 2}, {"small": {"cpus": 8}})
    assert started(decisions) == ["other"]
    assert {name.job_id for name in decisions.never} == {"impossible", "greedy"}
    assert "asks for 8 GPUs, and this engine has 2" in reasons(decisions)["impossible"]
    assert "the quota of the project small is 8" in reasons(decisions)["greedy"]
    assert "has none" in reasons(decide([], queued[:1], {"gpus": 0}, {}))["impossible"]


def test_a_project_at_its_quota_waits_alone() -> None:
    running = [claim(project="a"), claim(project="a")]
    queued = [claim("a_3", 9, project="a"), claim("b_1", project="b"), claim("b_2", project="b")]
    decisions = decide(running, queued, {"jobs": 8}, {"a": {"jobs": 2}, "*": {"jobs": 1}})
    assert started(decisions) == ["b_1"]
    assert "quota of the project a is used up: 2 jobs at a time" in reasons(decisions)["a_3"]
    assert "quota of the project b is used up: 1 jobs at a time" in reasons(decisions)["b_2"]


def test_within_a_project_nothing_delays_the_first_that_its_quota_keeps() -> None:
    running = [claim(cpus=4)]
    queued = [claim("big", cpus=8), claim("small", cpus=2), claim("no_cpus")]
    decisions = decide(running, queued, {"jobs": 8}, {"p": {"cpus": 8}})
    assert started(decisions) == ["no_cpus"]


def test_the_least_important_and_latest_give_way() -> None:
    running = [
        claim("old", 1, gives_way=True, gpus=1),
        claim("late", 1, gives_way=True, gpus=1),
        claim("important", 5, gives_way=True, gpus=1),
        claim("firm", 0, gpus=1),
        claim("elsewhere", 0, gives_way=True),
    ]
    decisions = decide(running, [claim("head", 4, gpus=1)], {"gpus": 4}, {})
    assert [name.job_id for name in decisions.give_way] == ["late"]
    assert "gives way to head" in decisions.give_way[JobName("p", "late")]
    assert reasons(decisions)["head"] == "Waits for late to give way."
    decisions = decide(running, [claim("head", 4, gpus=2)], {"gpus": 4}, {})
    assert {name.job_id for name in decisions.give_way} == {"old", "late"}
    for hopeless in (claim("head", 4, gpus=3), claim("head", 1, gpus=1)):
        assert decide(running, [hopeless], {"gpus": 4}, {}).give_way == {}


def test_nobody_gives_way_where_it_would_not_be_needed() -> None:
    small = claim("small", 0, gives_way=True, gpus=1)
    large = claim("large", 1, gives_way=True, gpus=3)
    decisions = decide([small, large], [claim("head", 4, gpus=3)], {"gpus": 4}, {})
    assert [name.job_id for name in decisions.give_way] == ["large"]
    leaving = Claim(large.name, large.demand, 1, True, is_leaving=True)
    assert decide([small, leaving], [claim("head", 4, gpus=3)], {"gpus": 4}, {}).give_way == {}


AMOUNTS = st.fixed_dictionaries({"cpus": st.integers(0, 4), "gpus": st.integers(0, 2)})
CLAIMS = st.builds(
    lambda demand, priority, project, gives_way: claim("", priority, project=project, gives_way=gives_way, **demand),
    AMOUNTS,
    st.integers(0, 3),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)
CAPACITY = st.fixed_dictionaries({"jobs": st.integers(1, 5), "cpus": st.integers(0, 8), "gpus": st.integers(0, 3)})
QUOTA = st.fixed_dictionaries({}, optional={"jobs": st.integers(0, 3), "cpus": st.integers(0, 6)})
QUOTAS = st.fixed_dictionaries({}, optional={"a": QUOTA})


def total(claims: list[Claim]) -> Counter[str]:
    amounts: Counter[str] = Counter()
    for each in claims:
        amounts.update(each.demand)
    return amounts


def fits(claims: list[Claim], limits: dict[str, int], newcomer: Claim) -> bool:
    """Whether `newcomer` fits beside `claims` in each dimension that it needs."""
    used = total(claims)
    return all(
        used[each] + newcomer.demand.get(each, 0) <= limits[each] for each in limits if newcomer.demand.get(each)
    )


def of(project: str | None, claims: list[Claim]) -> list[Claim]:
    """Those of a project; None for all."""
    return [each for each in claims if project in (None, each.name.project)]


@dataclass(frozen=True)
class Expected:
    """Who starts, the first of each project that its quota keeps, and the first that waits for room."""

    start: list[JobName]
    kept: dict[str, Claim]
    head: Claim | None


@given(running=st.lists(CLAIMS, max_size=4), queued=st.lists(CLAIMS, max_size=8), capacity=CAPACITY, quotas=QUOTAS)
@example(
    # The second is kept by its project's quota, the third stands back for it, and one that needs no CPU passes both.
    running=[],
    queued=[
        claim(priority=1, project="a", cpus=1),
        claim(priority=1, project="a", cpus=3),
        claim(priority=1, project="a", cpus=1),
        *(claim(project="a", cpus=0) for _ in range(4)),
    ],
    capacity={"jobs": 2, "cpus": 3},
    quotas={"a": {"jobs": 3, "cpus": 3}},
)
def test_the_rules_hold(
    running: list[Claim], queued: list[Claim], capacity: dict[str, int], quotas: dict[str, dict[str, int]]
) -> None:
    decisions = decide(running, queued, capacity, quotas)
    by_name = {each.name: each for each in [*running, *queued]}
    starting = [by_name[name] for name in decisions.start]
    assert sorted(map(str, [*decisions.start, *decisions.waiting])) == sorted(str(each.name) for each in queued)
    assert all(decisions.waiting.values())

    # Never more than there is, of anything.
    for at, each in enumerate(starting):
        assert fits([*running, *starting[:at]], capacity, each)
        assert fits(of(each.name.project, [*running, *starting[:at]]), quotas.get(each.name.project, {}), each)

    # The first that waits for room would start at once if nothing but those before it ran: nothing that has passed it
    # takes what it needs. The same holds within a project for the first that its quota keeps.
    in_order = sorted(queued, key=lambda each: -each.priority)
    expected = decide_one_by_one(running, queued, capacity, quotas)
    for head, project in [(expected.head, None), *((each, each.name.project) for each in expected.kept.values())]:
        if head is not None:
            at = in_order.index(head)
            before = of(project, [*running, *(each for each in in_order[:at] if each in starting)])
            passing = of(project, [each for each in in_order[at + 1 :] if each in starting])
            limits = capacity if project is None else quotas[project]
            taken, passed = total(before), total(passing)
            assert all(
                not passed[each] or passed[each] + head.demand[each] <= max(0, limits[each] - taken[each])
                for each in limits
                if head.demand.get(each)
            )

    # Who gives way lets do, is less important than the head, and is needed.
    leaving = [by_name[name] for name in decisions.give_way]
    if leaving:
        head = next(each for each in in_order if decisions.waiting.get(each.name, "").startswith("Waits for job"))
        assert all(each.gives_way and each.priority < head.priority for each in leaving)
        staying = [each for each in running if each not in leaving] + starting
        assert fits(staying, capacity, head)
        assert not any(fits([*staying, each], capacity, head) for each in leaving)


def decide_one_by_one(
    running: list[Claim],
    queued: list[Claim],
    capacity: Mapping[str, float],
    quotas: Mapping[str, Mapping[str, float]],
) -> Expected:
    """The rules of the queue as they are written down, job after job and without lines."""
    taken, kept, head = list(running), dict[str, Claim](), None
    for each in sorted(queued, key=lambda each: -each.priority):
        project = each.name.project
        quota = quotas.get(project, {})
        if not fits([], capacity, each) or not fits([], quota, each):
            continue
        if not fits([*of(project, taken), *([kept[project]] if project in kept else [])], quota, each):
            kept.setdefault(project, each)
        elif not fits([*taken, *([head] if head else [])], capacity, each):
            head = head or each
        else:
            taken.append(each)
    return Expected([each.name for each in taken[len(running) :]], kept, head)


@given(running=st.lists(CLAIMS, max_size=4), queued=st.lists(CLAIMS, max_size=12), capacity=CAPACITY, quotas=QUOTAS)
def test_lines_decide_as_if_each_job_was_looked_at(
    running: list[Claim], queued: list[Claim], capacity: dict[str, int], quotas: dict[str, dict[str, int]]
) -> None:
    assert (
        decide(running, queued, capacity, quotas).start == decide_one_by_one(running, queued, capacity, quotas).start
    )


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "discard", "tell"]), st.integers(0, 9), st.integers(0, 2)), max_size=40
    )
)
def test_places_are_right_whoever_comes_and_goes(steps: list[tuple[str, int, int]]) -> None:
    waiting, jobs, told = WaitingJobs(), dict[JobName, tuple[int, int]](), dict[JobName, str]()
    for step, number, priority in steps:
        name = JobName("p", f"job_{number // 3}", str(number))  # trials, three of each tuning job
        match step:
            case "add":
                waiting.add(name, {"jobs": 1, "cpus": number % 2}, priority=priority, sequence=number, told="first")
                told.setdefault(name, "first")
                jobs.setdefault(name, (-priority, number))
            case "discard":
                waiting.discard(name)
                jobs.pop(name, None)
                told.pop(name, None)
            case "tell" if name in jobs:
                waiting.tell(name, f"reason {priority}")
                told[name] = f"reason {priority}"
        in_order = sorted(jobs, key=lambda each: jobs[each])
        assert list(waiting) == in_order
        for at, each in reversed(list(enumerate(in_order, 1))):
            first = next(other for other in in_order if other.job == each.job)
            assert waiting.position(each.job) == in_order.index(first) + 1 <= at
        assert {each: waiting.told(each) for each in jobs} == told
        known = {each: reason for line in waiting.lines for reason, names in line.told.items() for each in names}
        assert known == told
        assert sorted(place[2] for line in waiting.lines for place in line.places) == sorted(jobs)
    assert waiting.position(JobName("p", "job_9")) == 0


@pytest.mark.parametrize("waiting", [0, 10_000])
def test_a_long_queue_is_ordered(waiting: int) -> None:
    queued = [claim(f"j{n}", n % 4) for n in range(waiting)]
    decisions = decide([claim()], queued, {"jobs": 2}, {})
    assert len(decisions.start) == min(1, waiting)
    assert len(decisions.waiting) == max(0, waiting - 1)
