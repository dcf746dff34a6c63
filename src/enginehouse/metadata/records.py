"""What the store holds, as plain frozen records.

Times are nanoseconds since the epoch, None where it has not happened. `revision` grows by one with each change;
`creation_key` tells a repeated create from a new one (core/repeats.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from enginehouse.core.names import (
    JobName,
    LocationOperationName,
    ModelName,
    OperationName,
    StudyName,
    TrialName,
    VersionName,
)
from enginehouse.schemas.ml_v1 import JobState, OperationType, VersionState
from enginehouse.schemas.optimizer import StudyState, TrialState

T = TypeVar("T")

TERMINAL_JOB_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


@dataclass(frozen=True)
class NewEvent:
    """Something that happened to a resource, to be written in the transaction that makes it true.

    Attributes:
        kind: "log" (a line of the service in the job's log), "state" (a change of state) or "decision" (why
            something waits or was chosen).
        severity: of a log line: INFO, WARNING, ERROR.
        message: for people.
        data: for programs.
    """

    kind: str
    message: str
    severity: str = "INFO"
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A stored event: `event_id` grows over the whole store, `timestamp_ns` strictly grows per resource."""

    event_id: int
    resource: str
    timestamp_ns: int
    kind: str
    severity: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Lease:
    """The right to act on `resource` until `expires_ns`; `token` guards the writes made under it."""

    resource: str
    token: str
    expires_ns: int


@dataclass(frozen=True)
class JobRecord:
    """A job, or a trial of a tuning job: users see the latter through the former alone.

    Attributes:
        request: the message that the user sent (Job, JSON-ready).
        plan: what jobs/plan made of it.
        run: how that is being carried out (jobs/run; of a tuning job tuning/progress).
        is_tuning: its trials run, not itself.
        sequence: grows with each job that is made; the store gives it.
    """

    name: JobName
    state: JobState
    request: dict[str, Any]
    labels: dict[str, str]
    priority: int
    create_time_ns: int
    plan: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    start_time_ns: int | None = None
    end_time_ns: int | None = None
    error_message: str = ""
    waiting_reason: str = ""
    stop_reason: str = ""
    revision: int = 1
    creation_key: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    is_tuning: bool = False
    sequence: int = field(default=0, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self.state in TERMINAL_JOB_STATES


@dataclass(frozen=True)
class ModelRecord:
    """A model. `request` holds the settable fields of the message Model, JSON-ready."""

    name: ModelName
    request: dict[str, Any]
    create_time_ns: int
    default_version_id: str = ""
    revision: int = 1
    creation_key: str = ""


@dataclass(frozen=True)
class VersionRecord:
    """A version. `uid` names its files and its servers, and is never used again after a delete."""

    name: VersionName
    uid: str
    state: VersionState
    request: dict[str, Any]
    create_time_ns: int
    framework: str = ""
    error_message: str = ""
    last_use_time_ns: int | None = None
    revision: int = 1
    creation_key: str = ""


@dataclass(frozen=True)
class OperationRecord:
    """A long-running operation on a model or version."""

    name: OperationName
    operation_type: OperationType
    model: ModelName
    version_id: str
    request: dict[str, Any]
    create_time_ns: int
    start_time_ns: int | None = None
    end_time_ns: int | None = None
    cancel_requested: bool = False
    error: dict[str, Any] | None = None
    response: dict[str, Any] | None = None
    revision: int = 1

    @property
    def done(self) -> bool:
        return self.end_time_ns is not None


@dataclass(frozen=True)
class StudyRecord:
    """A study.

    Attributes:
        config: the message StudyConfig, JSON-ready.
        seed: what its designer draws from.
        next_trial_id: ids count up and are never used again.
    """

    name: StudyName
    config: dict[str, Any]
    create_time_ns: int
    seed: int
    state: StudyState = "ACTIVE"
    inactive_reason: str = ""
    next_trial_id: int = 1
    revision: int = 1
    creation_key: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a study.

    Attributes:
        parameters: messages Trial_Parameter, JSON-ready.
        measurements: messages Measurement, JSON-ready, by (steps, elapsed time).
        final_measurement: likewise; None before the end and of an infeasible trial.
        client_id: whom it was suggested to.
    """

    name: TrialName
    state: TrialState
    parameters: list[dict[str, Any]]
    start_time_ns: int
    client_id: str = ""
    measurements: list[dict[str, Any]] = field(default_factory=list)
    final_measurement: dict[str, Any] | None = None
    end_time_ns: int | None = None
    infeasible: bool = False
    infeasible_reason: str = ""
    revision: int = 1
    creation_key: str = ""


@dataclass(frozen=True)
class LocationOperationRecord:
    """An operation on a study: `message` is the Operation, JSON-ready."""

    name: LocationOperationName
    message: dict[str, Any]
    create_time_ns: int


@dataclass(frozen=True)
class StudyChange:
    """What becomes of a study: itself, its new and changed trials, and the operation that tells of it."""

    study: StudyRecord
    trials: Sequence[TrialRecord] = ()
    operation: LocationOperationRecord | None = None


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list; `next_token` is empty on the last one."""

    items: list[T]
    next_token: str = ""
