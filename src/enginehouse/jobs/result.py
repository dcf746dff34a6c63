"""From the outcomes of replicas to a job's last state and its errorMessage, in the original's words."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginehouse.jobs.plan import ReplicaPlan
from enginehouse.metadata.records import JobRecord
from enginehouse.replica.spec import Outcome
from enginehouse.schemas.ml_v1 import JobState

Failures = Sequence[tuple[ReplicaPlan, Outcome]]


@dataclass(frozen=True)
class Result:
    """How a job ended; `error_message` is empty when it succeeded."""

    state: JobState
    error_message: str = ""


def failed(job_id: str, failures: Failures) -> Result:
    """The result of a job that failed by these replicas."""
    return Result(
        "FAILED",
        f"{describe(failures)}\n\nTo find out more about why your job exited please check the logs: "
        f"mle jobs stream-logs {job_id}",
    )


def describe(failures: Failures) -> str:
    """What became of replicas, one after the other."""
    return " ".join(_describe(replica, outcome) for replica, outcome in failures)


def _describe(replica: ReplicaPlan, outcome: Outcome) -> str:
    who = f"The replica {replica.role} {replica.index}"
    if outcome.reason == "environment_failed":
        text = f"{who} could not be prepared: {outcome.message}"
    elif outcome.reason == "lost":
        text = f"{who} was lost: {outcome.message}"
    elif outcome.reason == "stopped":
        text = f"{who} was stopped: {outcome.message}"
    elif outcome.out_of_memory:
        text = f"{who} ran out-of-memory and exited with a non-zero status of {signal.SIGKILL}(SIGKILL)."
    elif outcome.signal is not None:
        text = f"{who} exited with a non-zero status of {outcome.signal}({_signal_name(outcome.signal)})."
    else:
        text = f"{who} exited with a non-zero status of {outcome.exit_code}."
    if outcome.reason == "exited" and (detail := _detail(outcome)):
        text += f" {detail}"
    if outcome.traceback:
        text += f" \n{outcome.traceback.rstrip()}"
    return text


def _detail(outcome: Outcome) -> str:
    """What the runner's sentence adds to the status and the traceback: a hint, or that memory may have run out."""
    detail = outcome.message
    for what in ("module", "container"):
        detail = detail.removeprefix(f"The {what} ended with exit status {outcome.exit_code}.").strip()
    return "" if detail in outcome.traceback else detail


def consumed_ml_units(ml_units: float, start_time_ns: int | None, end_time_ns: int) -> float:
    """Training units between start and end, begun hundredths counted; 0 when it never ran.

    Args:
        ml_units: how many an hour costs.
    """
    if start_time_ns is None:
        return 0.0
    return math.ceil(round(max(1, end_time_ns - start_time_ns) / 3.6e12 * ml_units * 100, 9)) / 100


def prediction_output(job: JobRecord, report: Mapping[str, Any], ended_ns: int) -> dict[str, Any]:
    """The PredictionOutput of a batch prediction job.

    Args:
        report: what its program left behind; empty where it did not come to it.
    """
    return {
        "outputPath": job.request["predictionInput"]["outputPath"],
        "predictionCount": str(report.get("predictionCount", 0)),
        "errorCount": str(report.get("errorCount", 0)),
        "nodeHours": consumed_ml_units(report.get("workers", 1), job.start_time_ns, ended_ns),
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown signal"
