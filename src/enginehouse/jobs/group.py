"""What is next for the replicas of a job, from how they are: the failure policy as a pure function.

The original's policy: the master's end is the job's end. What user code decided (an exception, an exit status) or
cannot help (memory) is permanent and ends the job. A replica that was killed or lost is restarted, up to five times;
crashes of native code, and a sixth loss, begin the whole job anew, up to three times. Checkpoints in the job-dir are
what carries progress over.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from enginehouse.backends.base import Phase, ReplicaStatus
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.result import Result, describe, failed
from enginehouse.jobs.run import Run
from enginehouse.replica.spec import Outcome

MAX_RESTARTS = 5
"""Of one replica alone, before the whole job is begun anew."""
MAX_RETRIES = 3
"""Of the whole job."""

_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_SHELL_STATUS = 128
"""A shell tells that a signal ended a program by an exit status of 128 + its number."""


class Failure(Enum):
    """What kind a failure is of."""

    PERMANENT = "permanent"
    CRASH = "crash"
    LOSS = "loss"


@dataclass(frozen=True)
class Launch:
    """Begin these replicas."""

    replicas: tuple[ReplicaPlan, ...]


@dataclass(frozen=True)
class Restart:
    """Begin these replicas anew; the sentences say why."""

    replicas: tuple[ReplicaPlan, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Retry:
    """Stop all replicas and begin the whole job anew."""

    reason: str


@dataclass(frozen=True)
class End:
    """The job is over; stop what is left."""

    result: Result
    ended_ns: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do. `running_since_ns` is when the last replica came to run, None while one does not yet."""

    running_since_ns: int | None


Verdict = Launch | Restart | Retry | End | Wait


def look(job_id: str, plan: Plan, run: Run, statuses: Mapping[str, ReplicaStatus]) -> Verdict:
    """Decide.

    Args:
        statuses: task name → how its current launch is.
    """
    master = statuses[plan.replicas[0].task_name]
    if master.outcome is not None and master.outcome.succeeded:
        return End(Result("SUCCEEDED"), master.outcome.ended_ns)
    ended = [(each, statuses[each.task_name].outcome) for each in plan.replicas]
    failures = [(each, outcome) for each, outcome in ended if outcome is not None and not outcome.succeeded]
    if failures:
        return _after(job_id, run, failures)
    absent = tuple(each for each in plan.replicas if statuses[each.task_name].phase is Phase.ABSENT)
    if absent:
        return Launch(absent)
    since = [statuses[each.task_name].running_since_ns for each in plan.replicas]
    return Wait(None if None in since else max(ns for ns in since if ns is not None))


def kind_of(outcome: Outcome) -> Failure:
    """What kind of failure an outcome that is no success tells of."""
    if outcome.reason == "environment_failed" or outcome.out_of_memory:
        return Failure.PERMANENT
    if outcome.reason != "exited":
        return Failure.LOSS
    number = outcome.signal
    if number is None and outcome.exit_code is not None and outcome.exit_code > _SHELL_STATUS:
        number = outcome.exit_code - _SHELL_STATUS
    if number is None:
        return Failure.PERMANENT
    return Failure.CRASH if number in _CRASHES else Failure.LOSS


def _after(job_id: str, run: Run, failures: list[tuple[ReplicaPlan, Outcome]]) -> Verdict:
    ended_ns = max(outcome.ended_ns for _replica, outcome in failures)
    permanent = [(each, outcome) for each, outcome in failures if kind_of(outcome) is Failure.PERMANENT]
    if permanent:
        return End(failed(job_id, permanent), ended_ns)
    reason = describe(failures)
    crashed = any(kind_of(outcome) is Failure.CRASH for _replica, outcome in failures)
    worn_out = any(run.restarts.get(each.task_name, 0) >= MAX_RESTARTS for each, _outcome in failures)
    if not crashed and not worn_out:
        return Restart(tuple(each for each, _outcome in failures), tuple(describe([failure]) for failure in failures))
    if run.retries < MAX_RETRIES:
        return Retry(reason)
    return End(failed(job_id, failures), ended_ns)
