"""The 46 methods of ml v1: what routes and the discovery document are made from.

Source: the `ml` v1 discovery document, revision 20251213.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.routing import BaseRoute, Route

from enginehouse.api.http import Handler, endpoint
from enginehouse.schemas import iam, ml_v1, optimizer
from enginehouse.schemas.wire import Message

PREDICT, EXPLAIN = "projects.predict", "projects.explain"
"""Answered before all routes, by serving/router.py."""


@dataclass(frozen=True)
class Method:
    """One method: `id` without "ml.", `path` without "/v1/" and with the resources that it names in braces."""

    id: str
    verb: str
    path: str
    request: type[Message] | None
    response: type[Message]
    query: Sequence[str] = ()


IAM_OPTION = "options.requestedPolicyVersion"
_PAGE = ("pageSize", "pageToken")
_LIST = ("filter", *_PAGE)
_JOB = "projects/{project}/jobs/{job}"
_MODEL = "projects/{project}/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_OPERATION = "projects/{project}/operations/{operation}"
_LOCATION = "projects/{project}/locations/{location}"
_STUDY = _LOCATION + "/studies/{study}"
_TRIAL = _STUDY + "/trials/{trial}"


def _iam_methods(collection: str, path: str) -> list[Method]:
    return [
        Method(f"{collection}.getIamPolicy", "GET", path + ":getIamPolicy", None, iam.Policy, (IAM_OPTION,)),
        Method(f"{collection}.setIamPolicy", "POST", path + ":setIamPolicy", iam.SetIamPolicyRequest, iam.Policy),
        Method(
            f"{collection}.testIamPermissions",
            "POST",
            path + ":testIamPermissions",
            iam.TestIamPermissionsRequest,
            iam.TestIamPermissionsResponse,
        ),
    ]


def _study_methods() -> list[Method]:
    at, o = "projects.locations.studies", optimizer
    trials = f"{at}.trials"
    return [
        Method(f"{at}.create", "POST", _LOCATION + "/studies", o.Study, o.Study, ("studyId",)),
        Method(f"{at}.list", "GET", _LOCATION + "/studies", None, o.ListStudiesResponse),
        Method(f"{at}.get", "GET", _STUDY, None, o.Study),
        Method(f"{at}.delete", "DELETE", _STUDY, None, ml_v1.Empty),
        Method(f"{trials}.create", "POST", _STUDY + "/trials", o.Trial, o.Trial),
        Method(f"{trials}.list", "GET", _STUDY + "/trials", None, o.ListTrialsResponse),
        Method(f"{trials}.suggest", "POST", _STUDY + "/trials:suggest", o.SuggestTrialsRequest, ml_v1.Operation),
        Method(
            f"{trials}.listOptimalTrials",
            "POST",
            _STUDY + "/trials:listOptimalTrials",
            o.ListOptimalTrialsRequest,
            o.ListOptimalTrialsResponse,
        ),
        Method(f"{trials}.get", "GET", _TRIAL, None, o.Trial),
        Method(f"{trials}.delete", "DELETE", _TRIAL, None, ml_v1.Empty),
        Method(f"{trials}.addMeasurement", "POST", _TRIAL + ":addMeasurement", o.AddTrialMeasurementRequest, o.Trial),
        Method(
            f"{trials}.checkEarlyStoppingState",
            "POST",
            _TRIAL + ":checkEarlyStoppingState",
            o.CheckTrialEarlyStoppingStateRequest,
            ml_v1.Operation,
        ),
        Method(f"{trials}.complete", "POST", _TRIAL + ":complete", o.CompleteTrialRequest, o.Trial),
        Method(f"{trials}.stop", "POST", _TRIAL + ":stop", o.StopTrialRequest, o.Trial),
    ]


METHODS: tuple[Method, ...] = (
    Method("projects.getConfig", "GET", "projects/{project}:getConfig", None, ml_v1.GetConfigResponse),
    Method(PREDICT, "POST", "projects/{resource}:predict", ml_v1.PredictRequest, ml_v1.HttpBody),
    Method(EXPLAIN, "POST", "projects/{resource}:explain", ml_v1.ExplainRequest, ml_v1.HttpBody),
    Method("projects.jobs.create", "POST", "projects/{project}/jobs", ml_v1.Job, ml_v1.Job),
    Method("projects.jobs.list", "GET", "projects/{project}/jobs", None, ml_v1.ListJobsResponse, _LIST),
    Method("projects.jobs.get", "GET", _JOB, None, ml_v1.Job),
    Method("projects.jobs.patch", "PATCH", _JOB, ml_v1.Job, ml_v1.Job, ("updateMask",)),
    Method("projects.jobs.cancel", "POST", _JOB + ":cancel", ml_v1.CancelJobRequest, ml_v1.Empty),
    *_iam_methods("projects.jobs", _JOB),
    Method("projects.models.create", "POST", "projects/{project}/models", ml_v1.Model, ml_v1.Model),
    Method("projects.models.list", "GET", "projects/{project}/models", None, ml_v1.ListModelsResponse, _LIST),
    Method("projects.models.get", "GET", _MODEL, None, ml_v1.Model),
    Method("projects.models.patch", "PATCH", _MODEL, ml_v1.Model, ml_v1.Operation, ("updateMask",)),
    Method("projects.models.delete", "DELETE", _MODEL, None, ml_v1.Operation),
    *_iam_methods("projects.models", _MODEL),
    Method("projects.models.versions.create", "POST", _MODEL + "/versions", ml_v1.Version, ml_v1.Operation),
    Method("projects.models.versions.list", "GET", _MODEL + "/versions", None, ml_v1.ListVersionsResponse, _LIST),
    Method("projects.models.versions.get", "GET", _VERSION, None, ml_v1.Version),
    Method("projects.models.versions.patch", "PATCH", _VERSION, ml_v1.Version, ml_v1.Operation, ("updateMask",)),
    Method("projects.models.versions.delete", "DELETE", _VERSION, None, ml_v1.Operation),
    Method(
        "projects.models.versions.setDefault",
        "POST",
        _VERSION + ":setDefault",
        ml_v1.SetDefaultVersionRequest,
        ml_v1.Version,
    ),
    Method(
        "projects.operations.list",
        "GET",
        "projects/{project}/operations",
        None,
        ml_v1.ListOperationsResponse,
        (*_LIST, "returnPartialSuccess"),
    ),
    Method("projects.operations.get", "GET", _OPERATION, None, ml_v1.Operation),
    Method("projects.operations.cancel", "POST", _OPERATION + ":cancel", None, ml_v1.Empty),
    Method(
        "projects.locations.list", "GET", "projects/{project}/locations", None, ml_v1.ListLocationsResponse, _PAGE
    ),
    Method("projects.locations.get", "GET", _LOCATION, None, ml_v1.Location),
    Method("projects.locations.operations.get", "GET", _LOCATION + "/operations/{operation}", None, ml_v1.Operation),
    Method(
        "projects.locations.operations.cancel",
        "POST",
        _LOCATION + "/operations/{operation}:cancel",
        None,
        ml_v1.Empty,
    ),
    *_study_methods(),
)


def ml_routes(*handlers: Mapping[str, Handler]) -> list[BaseRoute]:
    """A route for each method, from handlers by method id.

    Raises:
        KeyError: a method has no handler.
    """
    by_id = {method_id: handler for some in handlers for method_id, handler in some.items()}
    # Those with a `:verb` first, since `{job}` would swallow it.
    methods = sorted(
        (m for m in METHODS if m.id not in (PREDICT, EXPLAIN)), key=lambda method: ":" not in method.path
    )
    return [
        Route(
            "/v1/" + method.path.replace("{resource}", "{resource:path}"),
            endpoint(by_id[method.id]),
            methods=[method.verb],
        )
        for method in methods
    ]
