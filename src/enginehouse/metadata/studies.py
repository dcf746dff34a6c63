"""Studies, trials and their operations on SQL: a part of the metadata store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import sqlalchemy as sa

from enginehouse.core.errors import AlreadyExists, NotFound
from enginehouse.core.names import LocationOperationName, StudyName, TrialName
from enginehouse.metadata import rows
from enginehouse.metadata.base import Change
from enginehouse.metadata.database import Database
from enginehouse.metadata.records import (
    LocationOperationRecord,
    NewEvent,
    StudyChange,
    StudyRecord,
    TrialRecord,
)
from enginehouse.metadata.tables import location_operations, studies, trials

_OPERATIONS_KEPT_NS = 7 * 86_400 * 10**9
"""Operations on studies are many (each question about early stopping is one) and of no use when they were read."""


def _in_study(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    """The condition of the queries below; `_of_study` has its values."""
    return (
        table.c.project == sa.bindparam("of_project"),
        table.c.location == sa.bindparam("of_location"),
        table.c.study_id == sa.bindparam("of_study"),
    )


# Made once, as in store.py.
_STUDY = studies.select().where(*_in_study(studies))
_STUDY_UPDATE = studies.update().where(*_in_study(studies))
_TRIALS = trials.select().where(*_in_study(trials)).order_by(trials.c.trial_id)
_UNFINISHED_TRIALS = _TRIALS.where(trials.c.state != "COMPLETED")
_IS_TRIAL = (*_in_study(trials), trials.c.trial_id == sa.bindparam("of_trial"))
_TRIAL = trials.select().where(*_IS_TRIAL)
_TRIAL_UPDATE = trials.update().where(*_IS_TRIAL)


class SqlStudies:
    """`StudyStore` (see base.py for the contract), for the store that has a database and writes events."""

    _database: Database
    _write_events: Callable[[sa.Connection, str, Sequence[NewEvent]], None]

    def create_study(self, study: StudyRecord) -> StudyRecord:
        try:
            with self._database.write() as connection:
                connection.execute(studies.insert(), rows.study_row(study))
        except sa.exc.IntegrityError:
            raise AlreadyExists(f"The study {study.name.study_id!r} exists.", field="study_id") from None
        return study

    def get_study(self, name: StudyName) -> StudyRecord:
        with self._database.read() as connection:
            return self._get_study(connection, name)

    def list_studies(self, project: str, location: str) -> list[StudyRecord]:
        query = studies.select().where(studies.c.project == project, studies.c.location == location)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(studies.c.study_id)).mappings()
            return [rows.study_record(row) for row in found]

    def delete_study(self, name: StudyName) -> None:
        with self._database.write() as connection:
            self._get_study(connection, name)
            connection.execute(trials.delete().where(*_in_study(trials)), _of_study(name))
            connection.execute(studies.delete().where(*_in_study(studies)), _of_study(name))

    def change_study(
        self, name: StudyName, change: Callable[[StudyRecord, list[TrialRecord]], StudyChange]
    ) -> StudyChange:
        with self._database.write() as connection:
            study = self._get_study(connection, name)
            changed = change(study, self._list_trials(connection, name, unfinished=True))
            changed = replace(changed, study=replace(changed.study, revision=study.revision + 1))
            connection.execute(_STUDY_UPDATE, rows.study_row(changed.study) | _of_study(name))
            for trial in changed.trials:
                self._put_trial(connection, trial)
            if changed.operation is not None:
                self._put_location_operation(connection, changed.operation)
            return changed

    def get_trial(self, name: TrialName) -> TrialRecord:
        with self._database.read() as connection:
            return self._get_trial(connection, name)

    def list_trials(self, study: StudyName, *, unfinished: bool = False) -> list[TrialRecord]:
        with self._database.read() as connection:
            self._get_study(connection, study)
            return self._list_trials(connection, study, unfinished=unfinished)

    def change_trial(
        self,
        name: TrialName,
        change: Change[TrialRecord],
        *,
        operation: LocationOperationRecord | None = None,
    ) -> TrialRecord:
        with self._database.write() as connection:
            trial = self._get_trial(connection, name)
            changed = change(trial)
            if changed is not None:
                trial = replace(changed[0], revision=trial.revision + 1)
                self._put_trial(connection, trial)
                self._write_events(connection, str(name), changed[1])
            if operation is not None:
                self._put_location_operation(connection, operation)
            return trial

    def delete_trial(self, name: TrialName) -> None:
        with self._database.write() as connection:
            self._get_trial(connection, name)
            connection.execute(trials.delete().where(*_IS_TRIAL), _of_trial(name))

    def get_location_operation(self, name: LocationOperationName) -> LocationOperationRecord:
        columns = location_operations.c
        query = location_operations.select().where(
            columns.project == name.project,
            columns.location == name.location,
            columns.operation_id == name.operation_id,
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"The specified operation {name.operation_id!r} was not found.", field="name")
        return rows.location_operation_record(row)

    def _get_study(self, connection: sa.Connection, name: StudyName) -> StudyRecord:
        row = connection.execute(_STUDY, _of_study(name)).mappings().first()
        if row is None:
            raise NotFound(f"The specified study {name.study_id!r} was not found in {name.location}.", field="name")
        return rows.study_record(row)

    def _get_trial(self, connection: sa.Connection, name: TrialName) -> TrialRecord:
        row = connection.execute(_TRIAL, _of_trial(name)).mappings().first()
        if row is None:
            raise NotFound(f"The study {name.study_id!r} has no trial {name.trial_id}.", field="name")
        return rows.trial_record(row)

    def _list_trials(self, connection: sa.Connection, study: StudyName, *, unfinished: bool) -> list[TrialRecord]:
        query = _UNFINISHED_TRIALS if unfinished else _TRIALS
        return [rows.trial_record(row) for row in connection.execute(query, _of_study(study)).mappings()]

    def _put_trial(self, connection: sa.Connection, trial: TrialRecord) -> None:
        row = rows.trial_row(trial)
        if connection.execute(_TRIAL_UPDATE, row | _of_trial(trial.name)).rowcount == 0:
            connection.execute(trials.insert(), row)

    def _put_location_operation(self, connection: sa.Connection, operation: LocationOperationRecord) -> None:
        oldest_ns = operation.create_time_ns - _OPERATIONS_KEPT_NS
        connection.execute(location_operations.delete().where(location_operations.c.create_time_ns < oldest_ns))
        connection.execute(location_operations.insert(), rows.location_operation_row(operation))


def _of_study(name: StudyName) -> dict[str, object]:
    return {"of_project": name.project, "of_location": name.location, "of_study": name.study_id}


def _of_trial(name: TrialName) -> dict[str, object]:
    return _of_study(name.study) | {"of_trial": name.trial_id}
