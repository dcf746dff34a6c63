"""The states of a job as a table, and the one function that moves a job from one to another.

In: a job as it is. Out: the job as it will be and the events to write with it, for `MetadataStore.change_job`.

    QUEUED ──► PREPARING ──► RUNNING ──► SUCCEEDED
       │           │            ├──────► FAILED
       └───────────┴────────────┴──────► CANCELLING ──► CANCELLED

A job that gives way to one of higher priority goes back from PREPARING or RUNNING to QUEUED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from enginehouse.metadata.records import TERMINAL_JOB_STATES, JobRecord, NewEvent
from enginehouse.schemas.ml_v1 import JobState

TRANSITIONS: dict[str, frozenset[str]] = {
    "QUEUED": frozenset({"PREPARING", "CANCELLING", "FAILED"}),
    "PREPARING": frozenset({"RUNNING", "CANCELLING", "FAILED", "QUEUED"}),
    "RUNNING": frozenset({"SUCCEEDED", "FAILED", "CANCELLING", "QUEUED"}),
    "CANCELLING": frozenset({"CANCELLED"}),
    "SUCCEEDED": frozenset(),
    "FAILED": frozenset(),
    "CANCELLED": frozenset(),
}

# The service's lines in a job's log, in the words and the order of the original.
VALIDATING = "Validating job requirements..."
VALIDATED = "Job creation request has been successfully validated."
WAITING_FOR_PROVISIONING = "Waiting for job to be provisioned."
WAITING_FOR_PROGRAM = "Waiting for training program to start."
RUNNING = "Job is running."
TEARING_DOWN = "Finished tearing down training program."
COMPLETED = "Job completed successfully."
CANCELLING = "Job is being cancelled."
CANCELLED = "Job cancelled."


def queued_line(job_id: str) -> str:
    """The log line of a job that has entered the queue."""
    return f"Job {job_id} is queued."


def log(message: str, *, severity: str = "INFO") -> NewEvent:
    """A line of the service in the job's log."""
    return NewEvent("log", message, severity=severity)


def transition(
    job: JobRecord,
    to: JobState,
    *,
    reason: str,
    now_ns: int,
    logs: Sequence[NewEvent] = (),
) -> tuple[JobRecord, list[NewEvent]]:
    """Move `job` to the state `to`.

    Args:
        reason: why, for the event; shown to the owner.
        now_ns: becomes endTime when `to` is final, else unused.
        logs: lines for the job's log, written with the change: endTime is never visible before the last line is.

    Raises:
        ValueError: the table has no such transition (a fault of the caller's).
    """
    if to not in TRANSITIONS[job.state]:
        raise ValueError(f"{job.name} can't go from {job.state} to {to}")
    moved = replace(job, state=to, waiting_reason="")
    if to in TERMINAL_JOB_STATES:
        moved = replace(moved, end_time_ns=now_ns)
    event = NewEvent("state", reason, data={"from": job.state, "to": to})
    return moved, [event, *logs]


def cancel(job: JobRecord, *, reason: str, now_ns: int) -> tuple[JobRecord, list[NewEvent]] | None:
    """Ask a job to end; None for one that has ended already, or is about to."""
    if job.is_terminal or job.state == "CANCELLING":
        return None
    moved = replace(job, stop_reason=reason)
    return transition(moved, "CANCELLING", reason=reason, now_ns=now_ns, logs=[log(CANCELLING)])
