"""Records to rows and back, and the tokens of pages."""

from __future__ import annotations

import base64
import json
from typing import Any, TypeVar

import sqlalchemy as sa

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.names import (
    JobName,
    LocationOperationName,
    ModelName,
    OperationName,
    StudyName,
    VersionName,
)
from enginehouse.metadata.records import (
    Event,
    JobRecord,
    LocationOperationRecord,
    ModelRecord,
    OperationRecord,
    StudyRecord,
    TrialRecord,
    VersionRecord,
)

K = TypeVar("K", int, str)


def _flat(record: Any) -> dict[str, Any]:
    """A record's fields with its name taken apart into columns."""
    row = dict(vars(record))
    return row | vars(row.pop("name"))


def job_row(job: JobRecord) -> dict[str, Any]:
    row = _flat(job)
    del row["sequence"]
    return row


def job_record(row: sa.RowMapping) -> JobRecord:
    values = dict(row)
    name = JobName(values.pop("project"), values.pop("job_id"), values.pop("trial_id"))
    return JobRecord(name=name, **values)


def model_row(model: ModelRecord) -> dict[str, Any]:
    return _flat(model)


def model_record(row: sa.RowMapping) -> ModelRecord:
    values = dict(row)
    return ModelRecord(name=ModelName(values.pop("project"), values.pop("model_id")), **values)


def version_row(version: VersionRecord) -> dict[str, Any]:
    return _flat(version)


def version_record(row: sa.RowMapping) -> VersionRecord:
    values = dict(row)
    name = VersionName(values.pop("project"), values.pop("model_id"), values.pop("version_id"))
    return VersionRecord(name=name, **values)


def operation_row(operation: OperationRecord) -> dict[str, Any]:
    row = _flat(operation)
    row["model_id"] = row.pop("model").model_id
    return row


def operation_record(row: sa.RowMapping) -> OperationRecord:
    values = dict(row)
    del values["sequence"]
    project = values.pop("project")
    return OperationRecord(
        name=OperationName(project, values.pop("operation_id")),
        model=ModelName(project, values.pop("model_id")),
        **values,
    )


def event_record(row: sa.RowMapping) -> Event:
    return Event(**row)


def study_row(study: StudyRecord) -> dict[str, Any]:
    return _flat(study)


def study_record(row: sa.RowMapping) -> StudyRecord:
    values = dict(row)
    name = StudyName(values.pop("project"), values.pop("location"), values.pop("study_id"))
    return StudyRecord(name=name, **values)


def trial_row(trial: TrialRecord) -> dict[str, Any]:
    return _flat(trial)


def trial_record(row: sa.RowMapping) -> TrialRecord:
    values = dict(row)
    study = StudyName(values.pop("project"), values.pop("location"), values.pop("study_id"))
    return TrialRecord(name=study.trial(values.pop("trial_id")), **values)


def location_operation_row(operation: LocationOperationRecord) -> dict[str, Any]:
    return _flat(operation)


def location_operation_record(row: sa.RowMapping) -> LocationOperationRecord:
    values = dict(row)
    name = LocationOperationName(values.pop("project"), values.pop("location"), values.pop("operation_id"))
    return LocationOperationRecord(name=name, **values)


def page_token(key: int | str) -> str:
    """An opaque token that says where the next page begins."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def page_key(token: str, kind: type[K]) -> K | None:
    """What `page_token` put in; None for the first page. Raises InvalidArgument for a token that is not ours."""
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except ValueError:
        key = None
    if not isinstance(key, kind):
        raise InvalidArgument("The page token is invalid; take it from the previous answer.", field="page_token")
    return key
