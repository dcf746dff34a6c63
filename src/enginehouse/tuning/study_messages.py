"""Records of studies and trials as the messages that the API shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enginehouse.core.names import LocationOperationName, TrialName
from enginehouse.core.units import format_time
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas import optimizer as messages
from enginehouse.schemas.ml_v1 import Operation
from enginehouse.schemas.wire import Message, from_builtins, to_builtins

_TYPE_PREFIX = "type.googleapis.com/google.cloud.ml.v1."


def study_message(study: StudyRecord) -> messages.Study:
    """A study with its full name and state."""
    return messages.Study(
        name=str(study.name),
        study_config=from_builtins(messages.StudyConfig, study.config),
        state=study.state,
        create_time=format_time(study.create_time_ns),
        inactive_reason=study.inactive_reason,
    )


def trial_message(trial: TrialRecord) -> messages.Trial:
    """A trial with its full name, state and measurements."""
    shown: dict[str, Any] = {
        "name": str(trial.name),
        "state": trial.state,
        "parameters": trial.parameters,
        "finalMeasurement": trial.final_measurement,
        "measurements": trial.measurements,
        "startTime": format_time(trial.start_time_ns),
        "endTime": None if trial.end_time_ns is None else format_time(trial.end_time_ns),
        "clientId": trial.client_id,
        "trialInfeasible": trial.infeasible,
        "infeasibleReason": trial.infeasible_reason,
    }
    return from_builtins(messages.Trial, shown)


def suggestion_operation(
    name: LocationOperationName,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    request: messages.SuggestTrialsRequest,
    *,
    start_ns: int,
    end_ns: int,
) -> Operation:
    """The operation, done, that gave `trials` to a client."""
    metadata = messages.SuggestTrialsMetadata(
        study=str(study.name),
        create_time=format_time(start_ns),
        suggestion_count=request.suggestion_count,
        client_id=request.client_id,
    )
    response = messages.SuggestTrialsResponse(
        trials=[trial_message(trial) for trial in trials],
        study_state=study.state,
        start_time=format_time(start_ns),
        end_time=format_time(end_ns),
    )
    return _done(name, metadata, response)


def early_stopping_operation(
    name: LocationOperationName, trial: TrialName, should_stop: bool, *, start_ns: int, end_ns: int
) -> Operation:
    """The operation, done, that judged a trial."""
    metadata = messages.CheckTrialEarlyStoppingStateMetatdata(
        study=str(trial.study), trial=str(trial), create_time=format_time(start_ns)
    )
    response = messages.CheckTrialEarlyStoppingStateResponse(
        should_stop=should_stop, start_time=format_time(start_ns), end_time=format_time(end_ns)
    )
    return _done(name, metadata, response)


def _done(name: LocationOperationName, metadata: Message, response: Message) -> Operation:
    return Operation(name=str(name), metadata=_any(metadata), done=True, response=_any(response))


def _any(message: Message) -> dict[str, Any]:
    """google.protobuf.Any."""
    return {"@type": _TYPE_PREFIX + type(message).__name__, **to_builtins(message)}
