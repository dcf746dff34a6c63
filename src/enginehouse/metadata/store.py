"""The metadata store on SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import sqlalchemy as sa

from enginehouse.core.clock import Clock
from enginehouse.core.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from enginehouse.core.ids import new_id
from enginehouse.core.names import JobName, ModelName, OperationName, VersionName
from enginehouse.metadata import rows
from enginehouse.metadata.base import Change
from enginehouse.metadata.database import Database
from enginehouse.metadata.records import (
    TERMINAL_JOB_STATES,
    Event,
    JobRecord,
    Lease,
    ModelRecord,
    NewEvent,
    OperationRecord,
    Page,
    VersionRecord,
)
from enginehouse.metadata.studies import SqlStudies
from enginehouse.metadata.tables import events, jobs, leases, models, operations, policies, versions
from enginehouse.schemas.ml_v1 import JobState

T = TypeVar("T")

_STARTED_JOB_STATES = tuple(sorted(set(get_args(JobState)) - TERMINAL_JOB_STATES - {"QUEUED"}))

# Asked many times a second, so made once: to put a query together takes as long as to answer it.
_JOB_OF_NAME = jobs.select().where(
    jobs.c.project == sa.bindparam("of_project"),
    jobs.c.job_id == sa.bindparam("of_job"),
    jobs.c.trial_id == sa.bindparam("of_trial"),
)
_STARTED_JOBS = (
    jobs.select().where(jobs.c.state.in_(_STARTED_JOB_STATES), ~jobs.c.is_tuning).order_by(jobs.c.sequence)
)
_TUNING_JOBS = (
    jobs.select()
    .where(jobs.c.state.in_(("QUEUED", *_STARTED_JOB_STATES)), jobs.c.is_tuning)
    .order_by(jobs.c.sequence)
)
_JOB_UPDATE = jobs.update().where(jobs.c.sequence == sa.bindparam("of_sequence"))
_MOVED = (
    sa.select(events.c.event_id, events.c.resource)
    .where(events.c.event_id > sa.bindparam("after"), events.c.kind == "state")
    .order_by(events.c.event_id)
)
_LAST_EVENT = sa.select(sa.func.max(events.c.timestamp_ns)).where(events.c.resource == sa.bindparam("of_resource"))
_TOKEN_OF_LEASE = sa.select(leases.c.token).where(leases.c.resource == sa.bindparam("of_resource"))


class SqlMetadataStore(SqlStudies):
    """`MetadataStore` (see base.py for the contract) on a `Database`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open_sqlite(cls, path: Path, clock: Clock) -> SqlMetadataStore:
        """Open the store in the SQLite file `path`, making or migrating its tables."""
        database = Database.sqlite(path)
        try:
            database.migrate()
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    def close(self) -> None:
        self._database.close()

    # --- jobs ---

    def create_job(self, job: JobRecord, events: Sequence[NewEvent]) -> JobRecord:
        try:
            with self._database.write() as connection:
                connection.execute(jobs.insert(), rows.job_row(job))
                self._write_events(connection, str(job.name), events)
        except sa.exc.IntegrityError:
            raise AlreadyExists(
                f"A job with id {job.name.job_id!r} exists in project {job.name.project!r}, maybe finished; ids are "
                "never used twice.",
                field="job.job_id",
            ) from None
        return job

    def get_job(self, name: JobName) -> JobRecord:
        with self._database.read() as connection:
            return rows.job_record(self._job_row(connection, name))

    def list_jobs(self, project: str, *, page_size: int, page_token: str = "") -> Page[JobRecord]:
        before = rows.page_key(page_token, int)
        query = jobs.select().where(jobs.c.project == project, jobs.c.trial_id == "")
        query = query.order_by(jobs.c.sequence.desc()).limit(page_size + 1)
        if before is not None:
            query = query.where(jobs.c.sequence < before)
        with self._database.read() as connection:
            found = connection.execute(query).mappings().all()
        return _page(found, page_size, rows.job_record, lambda row: row["sequence"])

    def started_jobs(self) -> list[JobRecord]:
        return self._jobs_of(_STARTED_JOBS)

    def tuning_jobs(self) -> list[JobRecord]:
        return self._jobs_of(_TUNING_JOBS)

    def trials_of(self, job: JobName) -> list[JobRecord]:
        of_job = jobs.c.project == job.project, jobs.c.job_id == job.job_id, jobs.c.trial_id != ""
        return self._jobs_of(jobs.select().where(*of_job).order_by(jobs.c.sequence))

    def _jobs_of(self, query: sa.Select[Any]) -> list[JobRecord]:
        with self._database.read() as connection:
            return [rows.job_record(row) for row in connection.execute(query).mappings()]

    def queued_jobs(self, *, after: int = 0, limit: int = 1000) -> list[JobRecord]:
        query = jobs.select().where(jobs.c.state == "QUEUED", jobs.c.sequence > after, ~jobs.c.is_tuning)
        return self._jobs_of(query.order_by(jobs.c.sequence).limit(limit))

    def moved_jobs(self, *, after: int) -> tuple[list[JobName], int]:
        with self._database.read() as connection:
            found = connection.execute(_MOVED, {"after": after}).all()
        names = {name: None for row in found if (name := JobName.parse(row.resource)) is not None}
        return list(names), found[-1].event_id if found else after

    def count_jobs(self) -> dict[str, int]:
        query = sa.select(jobs.c.state, sa.func.count().label("jobs"))
        query = query.where(jobs.c.trial_id == "").group_by(jobs.c.state)
        with self._database.read() as connection:
            return {row.state: row.jobs for row in connection.execute(query)}

    def change_job(self, name: JobName, change: Change[JobRecord], *, lease: Lease | None = None) -> JobRecord:
        with self._database.write() as connection:
            if lease is not None:
                self._check_lease(connection, lease)
            row = self._job_row(connection, name)
            job = rows.job_record(row)
            changed = change(job)
            if changed is None:
                return job
            job, new_events = replace(changed[0], revision=job.revision + 1), changed[1]
            connection.execute(_JOB_UPDATE, rows.job_row(job) | {"of_sequence": row["sequence"]})
            self._write_events(connection, str(name), new_events)
            return job

    def _job_row(self, connection: sa.Connection, name: JobName) -> sa.RowMapping:
        given = {"of_project": name.project, "of_job": name.job_id, "of_trial": name.trial_id}
        row = connection.execute(_JOB_OF_NAME, given).mappings().first()
        if row is None:
            raise NotFound(f"The specified job {name.job_id!r} was not found in {name.project!r}.", field="name")
        return row

    # --- models ---

    def create_model(self, model: ModelRecord) -> ModelRecord:
        try:
            with self._database.write() as connection:
                connection.execute(models.insert(), rows.model_row(model))
        except sa.exc.IntegrityError:
            raise AlreadyExists(
                f"A model with name {model.name.model_id!r} exists in project {model.name.project!r}.",
                field="model.name",
            ) from None
        return model

    def get_model(self, name: ModelName) -> ModelRecord:
        with self._database.read() as connection:
            return self._get_model(connection, name)

    def list_models(self, project: str, *, page_size: int, page_token: str = "") -> Page[ModelRecord]:
        after = rows.page_key(page_token, str)
        query = models.select().where(models.c.project == project).order_by(models.c.model_id).limit(page_size + 1)
        if after is not None:
            query = query.where(models.c.model_id > after)
        with self._database.read() as connection:
            found = connection.execute(query).mappings().all()
        return _page(found, page_size, rows.model_record, lambda row: row["model_id"])

    def change_model(self, name: ModelName, change: Change[ModelRecord]) -> ModelRecord:
        with self._database.write() as connection:
            model = self._get_model(connection, name)
            changed = change(model)
            if changed is None:
                return model
            model = replace(changed[0], revision=model.revision + 1)
            connection.execute(models.update().where(*_is_model(models, name)), rows.model_row(model))
            self._write_events(connection, str(name), changed[1])
            return model

    def delete_model(self, name: ModelName) -> None:
        with self._database.write() as connection:
            self._get_model(connection, name)
            left = connection.execute(
                sa.select(sa.func.count()).select_from(versions).where(*_is_model(versions, name))
            ).scalar_one()
            if left:
                raise FailedPrecondition(
                    f"The model {name.model_id!r} has {left} version(s); delete them first.", field="name"
                )
            connection.execute(models.delete().where(*_is_model(models, name)))
            connection.execute(policies.delete().where(policies.c.resource == str(name)))

    def _get_model(self, connection: sa.Connection, name: ModelName) -> ModelRecord:
        row = connection.execute(models.select().where(*_is_model(models, name))).mappings().first()
        if row is None:
            raise NotFound(f"The specified model {name.model_id!r} was not found in {name.project!r}.", field="name")
        return rows.model_record(row)

    # --- versions ---

    def create_version(self, version: VersionRecord, operation: OperationRecord) -> tuple[VersionRecord, bool]:
        with self._database.write() as connection:
            model = self._get_model(connection, version.name.model)
            try:
                connection.execute(versions.insert(), rows.version_row(version))
            except sa.exc.IntegrityError:
                raise AlreadyExists(
                    f"A version {version.name.version_id!r} exists in model {version.name.model_id!r}.",
                    field="version.name",
                ) from None
            first = not model.default_version_id
            if first:
                model = replace(model, default_version_id=version.name.version_id, revision=model.revision + 1)
                connection.execute(models.update().where(*_is_model(models, model.name)), rows.model_row(model))
            connection.execute(operations.insert(), rows.operation_row(operation))
        return version, first

    def get_version(self, name: VersionName) -> VersionRecord:
        with self._database.read() as connection:
            return self._get_version(connection, name)

    def list_versions(self, model: ModelName, *, page_size: int, page_token: str = "") -> Page[VersionRecord]:
        after = rows.page_key(page_token, str)
        query = (
            versions.select().where(*_is_model(versions, model)).order_by(versions.c.version_id).limit(page_size + 1)
        )
        if after is not None:
            query = query.where(versions.c.version_id > after)
        with self._database.read() as connection:
            self._get_model(connection, model)
            found = connection.execute(query).mappings().all()
        return _page(found, page_size, rows.version_record, lambda row: row["version_id"])

    def change_version(
        self, name: VersionName, change: Change[VersionRecord], *, operation: OperationRecord | None = None
    ) -> VersionRecord:
        with self._database.write() as connection:
            version = self._get_version(connection, name)
            changed = change(version)
            if changed is None:
                return version
            version = replace(changed[0], revision=version.revision + 1)
            connection.execute(versions.update().where(*_is_version(name)), rows.version_row(version))
            self._write_events(connection, str(name), changed[1])
            if operation is not None:
                self._put_operation(connection, operation)
            return version

    def use_version(self, name: VersionName, time_ns: int) -> None:
        with self._database.write() as connection:
            connection.execute(versions.update().where(*_is_version(name)).values(last_use_time_ns=time_ns))

    def delete_version(self, name: VersionName, operation: OperationRecord) -> None:
        with self._database.write() as connection:
            connection.execute(versions.delete().where(*_is_version(name)))
            model = self._get_model(connection, name.model)
            if model.default_version_id == name.version_id:
                model = replace(model, default_version_id="", revision=model.revision + 1)
                connection.execute(models.update().where(*_is_model(models, model.name)), rows.model_row(model))
            self._put_operation(connection, operation)

    def versions_in_state(self, state: str) -> list[VersionRecord]:
        with self._database.read() as connection:
            found = connection.execute(versions.select().where(versions.c.state == state)).mappings()
            return [rows.version_record(row) for row in found]

    def count_registry(self) -> tuple[int, int]:
        with self._database.read() as connection:
            counts = [
                connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in (models, versions)
            ]
        return counts[0], counts[1]

    def _get_version(self, connection: sa.Connection, name: VersionName) -> VersionRecord:
        row = connection.execute(versions.select().where(*_is_version(name))).mappings().first()
        if row is None:
            raise NotFound(
                f"The specified version {name.version_id!r} was not found in model {name.model_id!r}.", field="name"
            )
        return rows.version_record(row)

    # --- operations ---

    def put_operation(self, operation: OperationRecord) -> OperationRecord:
        with self._database.write() as connection:
            return self._put_operation(connection, operation)

    def get_operation(self, name: OperationName) -> OperationRecord:
        with self._database.read() as connection:
            row = connection.execute(operations.select().where(*_is_operation(name))).mappings().first()
        if row is None:
            raise NotFound(f"The specified operation {name.operation_id!r} was not found.", field="name")
        return rows.operation_record(row)

    def list_operations(self, project: str, *, page_size: int, page_token: str = "") -> Page[OperationRecord]:
        before = rows.page_key(page_token, int)
        query = operations.select().where(operations.c.project == project)
        if before is not None:
            query = query.where(operations.c.sequence < before)
        query = query.order_by(operations.c.sequence.desc()).limit(page_size + 1)
        with self._database.read() as connection:
            found = connection.execute(query).mappings().all()
        return _page(found, page_size, rows.operation_record, lambda row: row["sequence"])

    def pending_operations(self) -> list[OperationRecord]:
        query = operations.select().where(operations.c.end_time_ns.is_(None)).order_by(operations.c.sequence)
        with self._database.read() as connection:
            return [rows.operation_record(row) for row in connection.execute(query).mappings()]

    def _put_operation(self, connection: sa.Connection, operation: OperationRecord) -> OperationRecord:
        row = rows.operation_row(operation)
        found = connection.execute(operations.update().where(*_is_operation(operation.name)), row)
        if found.rowcount == 0:
            connection.execute(operations.insert(), row)
        return operation

    # --- events ---

    def newest_event(self) -> int:
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.max(events.c.event_id))).scalar() or 0

    def events(self, resource: str, *, after: int = 0, limit: int = 1000, kinds: Collection[str] = ()) -> list[Event]:
        query = events.select().where(events.c.resource == resource, events.c.event_id > after)
        if kinds:
            query = query.where(events.c.kind.in_(kinds))
        with self._database.read() as connection:
            found = connection.execute(query.order_by(events.c.event_id).limit(limit)).mappings()
            return [rows.event_record(row) for row in found]

    def _write_events(self, connection: sa.Connection, resource: str, new_events: Sequence[NewEvent]) -> None:
        if not new_events:
            return
        last_ns = connection.execute(_LAST_EVENT, {"of_resource": resource}).scalar() or 0
        # Strictly growing, also when the clock stands still or goes back: readers order by time.
        first_ns = max(self._clock.time_ns(), last_ns + 1)
        written = [
            {
                "resource": resource,
                "timestamp_ns": first_ns + at,
                "kind": event.kind,
                "severity": event.severity,
                "message": event.message,
                "data": event.data,
            }
            for at, event in enumerate(new_events)
        ]
        connection.execute(events.insert(), written)

    # --- policies ---

    def get_policy(self, resource: str) -> tuple[dict[str, Any], int]:
        with self._database.read() as connection:
            return self._get_policy(connection, resource)

    def change_policy(self, resource: str, change: Callable[[dict[str, Any], int], dict[str, Any]]) -> None:
        with self._database.write() as connection:
            policy, revision = self._get_policy(connection, resource)
            row = {"resource": resource, "policy": change(policy, revision), "revision": revision + 1}
            connection.execute(policies.delete().where(policies.c.resource == resource))
            connection.execute(policies.insert(), row)

    def _get_policy(self, connection: sa.Connection, resource: str) -> tuple[dict[str, Any], int]:
        row = connection.execute(policies.select().where(policies.c.resource == resource)).mappings().first()
        return (row["policy"], row["revision"]) if row else ({}, 0)

    # --- leases ---

    def acquire_lease(self, resource: str, *, duration_s: float) -> Lease | None:
        now_ns = self._clock.time_ns()
        lease = Lease(resource, new_id(), now_ns + int(duration_s * 1e9))
        with self._database.write() as connection:
            held = connection.execute(leases.select().where(leases.c.resource == resource)).mappings().first()
            if held is not None and held["expires_ns"] > now_ns:
                return None
            connection.execute(leases.delete().where(leases.c.resource == resource))
            connection.execute(
                leases.insert(),
                {"resource": lease.resource, "token": lease.token, "expires_ns": lease.expires_ns},
            )
        return lease

    def release_lease(self, lease: Lease) -> None:
        with self._database.write() as connection:
            connection.execute(
                leases.delete().where(leases.c.resource == lease.resource, leases.c.token == lease.token)
            )

    def clear_leases(self) -> None:
        with self._database.write() as connection:
            connection.execute(leases.delete())

    def _check_lease(self, connection: sa.Connection, lease: Lease) -> None:
        if connection.execute(_TOKEN_OF_LEASE, {"of_resource": lease.resource}).scalar() != lease.token:
            raise Aborted(f"The lease on {lease.resource} was lost to another engine.")


def _is_model(table: sa.Table, name: ModelName) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.project == name.project, table.c.model_id == name.model_id


def _is_version(name: VersionName) -> tuple[sa.ColumnElement[bool], ...]:
    return *_is_model(versions, name.model), versions.c.version_id == name.version_id


def _is_operation(name: OperationName) -> tuple[sa.ColumnElement[bool], ...]:
    return operations.c.project == name.project, operations.c.operation_id == name.operation_id


def _page(
    found: Sequence[sa.RowMapping],
    page_size: int,
    record: Callable[[sa.RowMapping], T],
    key: Callable[[sa.RowMapping], Any],
) -> Page[T]:
    """The first `page_size` of up to `page_size + 1` rows, with a token if there are more."""
    kept = found[:page_size]
    token = rows.page_token(key(kept[-1])) if len(found) > page_size else ""
    return Page([record(row) for row in kept], token)
