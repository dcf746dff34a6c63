"""The methods of ml v1's optimizer: studies, their trials, and the operations of a location."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.http import Handler, caller_of, in_thread, message_response, read_message
from enginehouse.api.ml_v1.places import LOCATIONS
from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import LocationOperationName, StudyName, TrialName
from enginehouse.schemas import optimizer as messages
from enginehouse.schemas.ml_v1 import Empty
from enginehouse.tuning.service import StudyService


@dataclass(frozen=True)
class StudiesApi:
    """The handlers over the service."""

    studies: StudyService
    max_body_bytes: int

    def handlers(self) -> dict[str, Handler]:
        """Handlers by method id."""
        at = "projects.locations"
        trials = f"{at}.studies.trials"
        return {
            f"{at}.studies.create": self._create,
            f"{at}.studies.list": self._list,
            f"{at}.studies.get": self._get,
            f"{at}.studies.delete": self._delete,
            f"{trials}.create": self._create_trial,
            f"{trials}.list": self._list_trials,
            f"{trials}.suggest": self._suggest,
            f"{trials}.listOptimalTrials": self._list_optimal,
            f"{trials}.get": self._get_trial,
            f"{trials}.delete": self._delete_trial,
            f"{trials}.addMeasurement": self._add_measurement,
            f"{trials}.checkEarlyStoppingState": self._check_early_stopping,
            f"{trials}.complete": self._complete,
            f"{trials}.stop": self._stop,
            f"{at}.operations.get": self._get_operation,
            f"{at}.operations.cancel": self._cancel_operation,
        }

    async def _answer(self, request: Request, method: Callable[..., Any], *args: Any) -> Response:
        return message_response(request, await in_thread(method, *args) or Empty())

    # --- studies ---

    async def _create(self, request: Request) -> Response:
        study = await read_message(request, messages.Study, max_bytes=self.max_body_bytes)
        location = request.path_params["location"]
        if location not in LOCATIONS:
            raise InvalidArgument(
                f"There is no location {location!r}; `locations list` shows them all.", field="parent"
            )
        name = StudyName(request.path_params["project"], location, request.query_params.get("studyId", ""))
        return await self._answer(request, self.studies.create, name, study, caller_of(request))

    async def _list(self, request: Request) -> Response:
        path = request.path_params
        return await self._answer(request, self.studies.list, path["project"], path["location"])

    async def _get(self, request: Request) -> Response:
        return await self._answer(request, self.studies.get, _study_name(request))

    async def _delete(self, request: Request) -> Response:
        return await self._answer(request, self.studies.delete, _study_name(request))

    # --- trials ---

    async def _create_trial(self, request: Request) -> Response:
        trial = await read_message(request, messages.Trial, max_bytes=self.max_body_bytes)
        name = _study_name(request)
        return await self._answer(request, self.studies.create_trial, name, trial, caller_of(request))

    async def _list_trials(self, request: Request) -> Response:
        return await self._answer(request, self.studies.list_trials, _study_name(request))

    async def _suggest(self, request: Request) -> Response:
        asked = await read_message(request, messages.SuggestTrialsRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.suggest, _study_name(request), asked)

    async def _list_optimal(self, request: Request) -> Response:
        await read_message(request, messages.ListOptimalTrialsRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.list_optimal, _study_name(request))

    async def _get_trial(self, request: Request) -> Response:
        return await self._answer(request, self.studies.get_trial, _trial_name(request))

    async def _delete_trial(self, request: Request) -> Response:
        return await self._answer(request, self.studies.delete_trial, _trial_name(request))

    async def _add_measurement(self, request: Request) -> Response:
        asked = await read_message(request, messages.AddTrialMeasurementRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.add_measurement, _trial_name(request), asked)

    async def _check_early_stopping(self, request: Request) -> Response:
        kind = messages.CheckTrialEarlyStoppingStateRequest
        await read_message(request, kind, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.check_early_stopping, _trial_name(request))

    async def _complete(self, request: Request) -> Response:
        asked = await read_message(request, messages.CompleteTrialRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.complete, _trial_name(request), asked)

    async def _stop(self, request: Request) -> Response:
        await read_message(request, messages.StopTrialRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.studies.stop, _trial_name(request))

    # --- operations ---

    async def _get_operation(self, request: Request) -> Response:
        return await self._answer(request, self.studies.get_operation, _operation_name(request))

    async def _cancel_operation(self, request: Request) -> Response:
        """All of them are done when they are told of, so there is nothing to cancel."""
        await in_thread(self.studies.get_operation, _operation_name(request))
        return message_response(request, Empty())


def _study_name(request: Request) -> StudyName:
    path = request.path_params
    return StudyName(path["project"], path["location"], path["study"])


def _trial_name(request: Request) -> TrialName:
    text = request.path_params["trial"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFound(f"The study has no trial {text!r}; trials are numbered.", field="name")
    return _study_name(request).trial(int(text))


def _operation_name(request: Request) -> LocationOperationName:
    path = request.path_params
    return LocationOperationName(path["project"], path["location"], path["operation"])
