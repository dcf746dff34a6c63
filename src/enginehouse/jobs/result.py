"""From a replica's outcome to the job's last state and its errorMessage, in the original's words."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass

from enginehouse.jobs.plan import ReplicaPlan
from enginehouse.replica.spec import Outcome
from enginehouse.schemas.ml_v1 import JobState

_ML_UNITS_PER_HOUR = 1.0
"""Training units of a single BASIC machine."""


@dataclass(frozen=True)
class Result:
    """How a job ended; `error_message` is empty when it succeeded."""

    state: JobState
    error_message: str = ""


def judge(job_id: str, replica: ReplicaPlan, outcome: Outcome) -> Result:
    """The result of a job whose master has ended.

    Args:
        replica: the master.
        outcome: what its runner left on disk.
    """
    if outcome.reason == "exited" and outcome.exit_code == 0:
        return Result("SUCCEEDED")
    who = f"The replica {replica.role} {replica.index}"
    if outcome.reason == "environment_failed":
        text = f"{who} could not be prepared: {outcome.message}"
    elif outcome.reason == "lost":
        text = f"{who} was lost: {outcome.message}"
    elif outcome.signal is not None:
        text = f"{who} exited with a non-zero status of {outcome.signal}({_signal_name(outcome.signal)})."
    else:
        text = f"{who} exited with a non-zero status of {outcome.exit_code}."
    if outcome.reason == "exited" and (detail := _detail(outcome)):
        text += f" {detail}"
    if outcome.traceback:
        text += f" \n{outcome.traceback.rstrip()}"
    return Result(
        "FAILED",
        f"{text}\n\nTo find out more about why your job exited please check the logs: mle jobs stream-logs {job_id}",
    )


def _detail(outcome: Outcome) -> str:
    """What the runner's sentence adds to the status and the traceback: a hint, or that memory may have run out."""
    detail = outcome.message.removeprefix(f"The module ended with exit status {outcome.exit_code}.").strip()
    return "" if detail in outcome.traceback else detail


def consumed_ml_units(start_time_ns: int | None, end_time_ns: int) -> float:
    """Machine hours between start and end as training units, begun hundredths counted; 0 when it never ran."""
    if start_time_ns is None:
        return 0.0
    return math.ceil(max(1, end_time_ns - start_time_ns) / 3.6e12 * _ML_UNITS_PER_HOUR * 100) / 100


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown signal"
