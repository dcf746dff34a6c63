"""The contract of a metadata store.

Thread and process safety: every method may be called from any thread at any time; each is one transaction, durable
when it returns. A process killed inside a call leaves either all or nothing of it.

Changes: `change_*` reads the row, hands it to `change` and writes what comes back together with its events, all in
one transaction, so that no update is ever lost. `change` must be a quick pure function: it may run inside a lock of
the whole store. It returns None to leave everything as it is.

Leases: a reconciler takes a lease before it acts and passes it to `change_*`; a write under a lease that has expired
and was taken by somebody else raises `Aborted` and changes nothing.

Errors: `NotFound`, `AlreadyExists`, `Aborted` of core.errors; nothing of a database's own errors leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

from enginehouse.core.names import (
    JobName,
    LocationOperationName,
    ModelName,
    OperationName,
    StudyName,
    TrialName,
    VersionName,
)
from enginehouse.metadata.records import (
    Event,
    JobRecord,
    Lease,
    LocationOperationRecord,
    ModelRecord,
    NewEvent,
    OperationRecord,
    Page,
    StudyChange,
    StudyRecord,
    TrialRecord,
    VersionRecord,
)

T = TypeVar("T")
Change = Callable[[T], tuple[T, Sequence[NewEvent]] | None]


class JobStore(Protocol):
    """Jobs and the order in which they were made."""

    def create_job(self, job: JobRecord, events: Sequence[NewEvent]) -> JobRecord:
        """Add a job. Raises AlreadyExists when the project has one of that id, finished or not."""
        ...

    def get_job(self, name: JobName) -> JobRecord: ...

    def list_jobs(self, project: str, *, page_size: int, page_token: str = "") -> Page[JobRecord]:
        """Newest first; trials are not among them."""
        ...

    def trials_of(self, job: JobName) -> list[JobRecord]:
        """The trials of a tuning job, oldest first."""
        ...

    def started_jobs(self) -> list[JobRecord]:
        """All jobs and trials of all projects that have left the queue and have not ended, oldest first.

        Tuning jobs are not among them, as they have nothing to run but their trials.
        """
        ...

    def queued_jobs(self, *, after: int = 0, limit: int = 1000) -> list[JobRecord]:
        """Jobs and trials of all projects in the queue but tuning jobs, oldest first.

        Args:
            after: the sequence number of the last one that is known.
        """
        ...

    def moved_jobs(self, *, after: int) -> tuple[list[JobName], int]:
        """The jobs and trials that were made or went to another state since an event, and the id of the last such."""
        ...

    def tuning_jobs(self) -> list[JobRecord]:
        """All tuning jobs of all projects that have not ended, oldest first."""
        ...

    def count_jobs(self) -> dict[str, int]:
        """How many jobs are in each state, over all projects; trials don't count."""
        ...

    def change_job(self, name: JobName, change: Change[JobRecord], *, lease: Lease | None = None) -> JobRecord: ...


class RegistryStore(Protocol):
    """Models, versions and the operations on them."""

    def create_model(self, model: ModelRecord) -> ModelRecord: ...

    def get_model(self, name: ModelName) -> ModelRecord: ...

    def list_models(self, project: str, *, page_size: int, page_token: str = "") -> Page[ModelRecord]:
        """By name."""
        ...

    def change_model(self, name: ModelName, change: Change[ModelRecord]) -> ModelRecord: ...

    def delete_model(self, name: ModelName) -> None:
        """Raises FailedPrecondition while the model has versions."""
        ...

    def create_version(self, version: VersionRecord, operation: OperationRecord) -> tuple[VersionRecord, bool]:
        """Add a version and the operation that will make it ready, both or none.

        Returns:
            The version, and whether it is the first one of its model, which made it the default.
        """
        ...

    def get_version(self, name: VersionName) -> VersionRecord: ...

    def list_versions(self, model: ModelName, *, page_size: int, page_token: str = "") -> Page[VersionRecord]:
        """By name."""
        ...

    def change_version(
        self, name: VersionName, change: Change[VersionRecord], *, operation: OperationRecord | None = None
    ) -> VersionRecord:
        """Change a version and, where given, write `operation` (new or changed) in the same transaction."""
        ...

    def use_version(self, name: VersionName, time_ns: int) -> None:
        """Note when a version was last asked; its revision stays. Nothing happens when it is gone."""
        ...

    def delete_version(self, name: VersionName, operation: OperationRecord) -> None:
        """Remove the row and write the ended operation, both or none."""
        ...

    def versions_in_state(self, state: str) -> list[VersionRecord]:
        """All versions of all projects in `state`."""
        ...

    def count_registry(self) -> tuple[int, int]:
        """How many models and versions there are, over all projects."""
        ...

    def put_operation(self, operation: OperationRecord) -> OperationRecord:
        """Add or replace an operation."""
        ...

    def get_operation(self, name: OperationName) -> OperationRecord: ...

    def list_operations(self, project: str, *, page_size: int, page_token: str = "") -> Page[OperationRecord]:
        """Newest first."""
        ...

    def pending_operations(self) -> list[OperationRecord]:
        """All operations of all projects that are not done, oldest first."""
        ...


class EventStore(Protocol):
    """What happened, in order."""

    def newest_event(self) -> int:
        """The id of the event that was written last, of any resource; 0 before the first."""
        ...

    def events(self, resource: str, *, after: int = 0, limit: int = 1000, kinds: Collection[str] = ()) -> list[Event]:
        """Events of `resource` with an id above `after`, in order of id (which is the order of time)."""
        ...


class LeaseStore(Protocol):
    """Who may act on what."""

    def acquire_lease(self, resource: str, *, duration_s: float) -> Lease | None:
        """Take the lease, or None while another holder's has not expired."""
        ...

    def release_lease(self, lease: Lease) -> None:
        """Give it back; harmless when it is gone already."""
        ...

    def clear_leases(self) -> None:
        """Forget all leases. Only right for who holds the data directory alone, as an engine does at its start."""
        ...


class PolicyStore(Protocol):
    """IAM policies, by the name of the resource that they are of."""

    def get_policy(self, resource: str) -> tuple[dict[str, Any], int]:
        """The policy, JSON-ready, and its revision; `({}, 0)` where none was ever set."""
        ...

    def change_policy(self, resource: str, change: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
        """Replace the policy by what `change` makes of it and of its revision, in one transaction."""
        ...


class StudyStore(Protocol):
    """Studies, their trials, and the operations on them."""

    def create_study(self, study: StudyRecord) -> StudyRecord: ...

    def get_study(self, name: StudyName) -> StudyRecord: ...

    def list_studies(self, project: str, location: str) -> list[StudyRecord]:
        """By name."""
        ...

    def delete_study(self, name: StudyName) -> None:
        """Delete it with its trials."""
        ...

    def change_study(
        self, name: StudyName, change: Callable[[StudyRecord, list[TrialRecord]], StudyChange]
    ) -> StudyChange:
        """Replace a study and add or replace some of its trials.

        Args:
            change: gets the study and those of its trials that are not COMPLETED, by id.
        """
        ...

    def get_trial(self, name: TrialName) -> TrialRecord: ...

    def list_trials(self, study: StudyName, *, unfinished: bool = False) -> list[TrialRecord]:
        """By id; only those that are not COMPLETED where `unfinished`."""
        ...

    def change_trial(
        self, name: TrialName, change: Change[TrialRecord], *, operation: LocationOperationRecord | None = None
    ) -> TrialRecord:
        """Change a trial and, where given, add `operation`, both or none."""
        ...

    def delete_trial(self, name: TrialName) -> None: ...

    def get_location_operation(self, name: LocationOperationName) -> LocationOperationRecord:
        """An operation on a study; kept for a week."""
        ...


class MetadataStore(JobStore, RegistryStore, StudyStore, EventStore, LeaseStore, PolicyStore, Protocol):
    """All of it, in one place."""

    def close(self) -> None: ...
