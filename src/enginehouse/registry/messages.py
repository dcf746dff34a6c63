"""Records of the registry as the messages that the API shows."""

from __future__ import annotations

from typing import Any

from enginehouse.core import ids
from enginehouse.core.names import VersionName
from enginehouse.core.units import format_time
from enginehouse.metadata.records import ModelRecord, OperationRecord, VersionRecord
from enginehouse.schemas.ml_v1 import Model, Operation, OperationMetadata, Status, Version
from enginehouse.schemas.wire import from_builtins, to_builtins

TRAFFIC = "enginehouseTraffic"
"""Where a model's request record holds how its requests are shared out (`registry.traffic`); no field of the API."""
SCHEMA = "enginehouseSchema"
"""Where a version's request record holds what the model told of its inputs and outputs; no field of the API."""
_TYPE_PREFIX = "type.googleapis.com/google.cloud.ml.v1."


def fields_of(request: dict[str, Any]) -> dict[str, Any]:
    """The fields of a stored request that the API has."""
    return {key: value for key, value in request.items() if key not in (TRAFFIC, SCHEMA)}


def version_message(version: VersionRecord, *, is_default: bool) -> Version:
    """A version with its full name, state and times."""
    message = from_builtins(Version, fields_of(version.request))
    message.name = str(version.name)
    message.is_default = is_default
    message.state = version.state
    message.error_message = version.error_message
    message.create_time = format_time(version.create_time_ns)
    if version.last_use_time_ns is not None:
        message.last_use_time = format_time(version.last_use_time_ns)
    if version.framework:
        message.framework = version.framework  # type: ignore[assignment]
    message.etag = ids.etag(version.revision)
    return message


def model_message(model: ModelRecord, default_version: VersionRecord | None) -> Model:
    """A model with its full name and, where it has one, its default version."""
    message = from_builtins(Model, fields_of(model.request))
    message.name = str(model.name)
    if default_version is not None:
        message.default_version = version_message(default_version, is_default=True)
    message.etag = ids.etag(model.revision)
    return message


def operation_message(operation: OperationRecord) -> Operation:
    """An operation with its metadata and, when it is done, its response or error."""
    metadata = OperationMetadata(
        create_time=format_time(operation.create_time_ns),
        is_cancellation_requested=operation.cancel_requested,
        operation_type=operation.operation_type,
        model_name=str(operation.model),
    )
    if operation.start_time_ns is not None:
        metadata.start_time = format_time(operation.start_time_ns)
    if operation.end_time_ns is not None:
        metadata.end_time = format_time(operation.end_time_ns)
    if operation.version_id:
        name = VersionName(operation.model.project, operation.model.model_id, operation.version_id)
        metadata.version = from_builtins(Version, fields_of(operation.request) | {"name": str(name)})
    return Operation(
        name=str(operation.name),
        metadata={"@type": _TYPE_PREFIX + "OperationMetadata", **to_builtins(metadata)},
        done=operation.done,
        error=from_builtins(Status, operation.error) if operation.error else None,
        response=operation.response,
    )


def response_of(message: Version | Model | None) -> dict[str, Any]:
    """The `response` of an operation that made or changed `message`; Empty for None."""
    if message is None:
        return {"@type": "type.googleapis.com/google.protobuf.Empty"}
    return {"@type": _TYPE_PREFIX + type(message).__name__, **to_builtins(message)}
