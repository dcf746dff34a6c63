"""Discovery documents: what ml v1 has, for clients that ask at run time.

Clients of the Cloud MLE era fetched the document before their first call, from either of two places; both are served.
It is made from the methods and messages themselves, so it tells what this engine takes.

Source: https://developers.google.com/discovery/v1/reference/apis.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, json_response
from enginehouse.api.ml_v1.methods import IAM_OPTION, METHODS, Method
from enginehouse.core.errors import NotFound
from enginehouse.schemas import iam, ml_v1, optimizer
from enginehouse.schemas.wire import Int64

_ROOT_URL = "https://ml.googleapis.com/"
_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_SCOPES = {
    _PLATFORM: {"description": "See, change and delete the data of your projects"},
    _PLATFORM + ".read-only": {"description": "See the data of your projects"},
}
_ANYTHING = {"type": "any"}
_GLOBAL_PARAMETERS: dict[str, dict[str, Any]] = {
    "$.xgafv": {"type": "string", "enum": ["1", "2"], "description": "The form of errors; taken and left alone."},
    "access_token": {"type": "string", "description": "An OAuth access token."},
    "alt": {
        "type": "string",
        "default": "json",
        "enum": ["json", "media", "proto"],
        "description": "The form of the answer; this engine answers JSON.",
    },
    "callback": {"type": "string", "description": "JSONP; taken and left alone."},
    "fields": {"type": "string", "description": "Which fields the answer has: name,labels or jobs(jobId,state)."},
    "key": {"type": "string", "description": "An API key; taken and left alone."},
    "oauth_token": {"type": "string", "description": "An OAuth 2.0 token."},
    "prettyPrint": {"type": "boolean", "default": "true", "description": "Whether the answer is indented."},
    "quotaUser": {"type": "string", "description": "Taken and left alone: there are no quotas for requests."},
    "uploadType": {"type": "string", "description": "Taken and left alone."},
    "upload_protocol": {"type": "string", "description": "Taken and left alone."},
}
_QUERY_PARAMETERS: dict[str, dict[str, Any]] = {
    "filter": {"type": "string", "description": "Which to list, such as 'jobId:census* AND state:FAILED'."},
    "pageSize": {"type": "integer", "format": "int32", "description": "How many at most, 1 to 100; 20 if left out."},
    "pageToken": {"type": "string", "description": "nextPageToken of the page before."},
    "updateMask": {"type": "string", "format": "google-fieldmask", "description": "Which fields to change."},
    "studyId": {"type": "string", "description": "The id of the new study."},
    "returnPartialSuccess": {"type": "boolean", "description": "Taken and left alone: there is one place only."},
    IAM_OPTION: {"type": "integer", "format": "int32", "description": "The version of policies, 0 to 3."},
}
# Messages whose name in the document is not their own.
_NESTED: dict[type[msgspec.Struct], str] = {
    ml_v1.HyperparameterMetric: "GoogleCloudMlV1_HyperparameterOutput_HyperparameterMetric",
    ml_v1.Operation: "GoogleLongrunning__Operation",
    ml_v1.ListOperationsResponse: "GoogleLongrunning__ListOperationsResponse",
    ml_v1.Status: "GoogleRpc__Status",
    ml_v1.Empty: "GoogleProtobuf__Empty",
    ml_v1.HttpBody: "GoogleApi__HttpBody",
    iam.Expr: "GoogleType__Expr",
    optimizer.StudyParameterSpec: "GoogleCloudMlV1_StudyConfig_ParameterSpec",
    optimizer.StudyMetricSpec: "GoogleCloudMlV1_StudyConfig_MetricSpec",
    optimizer.MeasurementMetric: "GoogleCloudMlV1_Measurement_Metric",
    optimizer.TrialParameter: "GoogleCloudMlV1_Trial_Parameter",
    **{
        kind: f"GoogleCloudMlV1_StudyConfigParameterSpec_{kind.__name__}"
        for kind in (
            optimizer.CategoricalValueSpec,
            optimizer.DiscreteValueSpec,
            optimizer.DoubleValueSpec,
            optimizer.IntegerValueSpec,
            optimizer.MatchingParentCategoricalValueSpec,
            optimizer.MatchingParentDiscreteValueSpec,
            optimizer.MatchingParentIntValueSpec,
        )
    },
    **{
        kind: f"GoogleCloudMlV1_AutomatedStoppingConfig_{kind.__name__}"
        for kind in (
            optimizer.DecayCurveAutomatedStoppingConfig,
            optimizer.MedianAutomatedStoppingConfig,
            optimizer.SuccessiveHalvingStoppingConfig,
        )
    },
}


_PREFIXES = {
    ml_v1.__name__: "GoogleCloudMlV1",
    optimizer.__name__: "GoogleCloudMlV1",
    iam.__name__: "GoogleIamV1",
}
_IN_OPERATIONS = (
    ml_v1.OperationMetadata,
    optimizer.SuggestTrialsMetadata,
    optimizer.SuggestTrialsResponse,
    optimizer.CheckTrialEarlyStoppingStateMetatdata,
    optimizer.CheckTrialEarlyStoppingStateResponse,
)
"""Messages that no method names, since operations carry them."""


def discovery_routes() -> list[BaseRoute]:
    """Both historic places of the document."""
    return [
        Route("/discovery/v1/apis/{api}/{version}/rest", endpoint(_by_path), methods=["GET"]),
        Route("/$discovery/rest", endpoint(_by_query), methods=["GET"]),
    ]


@functools.cache
def ml_document() -> dict[str, Any]:
    """The discovery document of ml v1."""
    schemas: dict[str, Any] = {}
    resources: dict[str, Any] = {}
    for method in METHODS:
        *path, name = method.id.split(".")
        place: dict[str, Any] = {"resources": resources}
        for part in path:
            place = place.setdefault("resources", {}).setdefault(part, {})
        place.setdefault("methods", {})[name] = _method(method, schemas)
    for kind in _IN_OPERATIONS:
        _add_schema(kind, schemas)
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "ml:v1",
        "name": "ml",
        "version": "v1",
        "revision": "20251213",
        "title": "ml v1 of Enginehouse",
        "description": "Training jobs, models, versions and predictions.",
        "protocol": "rest",
        "rootUrl": _ROOT_URL,
        "baseUrl": _ROOT_URL,
        "basePath": "",
        "servicePath": "",
        "batchPath": "batch",
        "fullyEncodeReservedExpansion": True,
        "auth": {"oauth2": {"scopes": _SCOPES}},
        "parameters": {name: {**each, "location": "query"} for name, each in _GLOBAL_PARAMETERS.items()},
        "resources": resources,
        "schemas": dict(sorted(schemas.items())),
    }


async def _by_path(request: Request) -> Response:
    return _answer(request, request.path_params["api"], request.path_params["version"])


async def _by_query(request: Request) -> Response:
    return _answer(request, "ml", request.query_params.get("version", "v1"))


def _answer(request: Request, api: str, version: str) -> Response:
    if (api, version) != ("ml", "v1"):
        raise NotFound(f"There is no discovery document of {api} {version} here, only that of ml v1.")
    return json_response(request, ml_document())


def _method(method: Method, schemas: dict[str, Any]) -> dict[str, Any]:
    parameter, resource, suffix = _resource(method)
    pattern = "^" + re.sub(r"\{\w+\}", "[^/]+", resource.replace("{resource}", ".*")) + "$"
    parameters = {parameter: {"type": "string", "required": True, "pattern": pattern, "location": "path"}}
    for name in method.query:
        parameters[name] = {**_QUERY_PARAMETERS[name], "location": "query"}
    document = {
        "id": f"ml.{method.id}",
        "httpMethod": method.verb,
        "path": f"v1/{{+{parameter}}}{suffix}",
        "flatPath": "v1/" + re.sub(r"(\w+)/\{\w+\}", r"\1/{\1Id}", method.path),
        "parameters": parameters,
        "parameterOrder": [parameter],
        "response": {"$ref": _add_schema(method.response, schemas)},
        "scopes": list(_SCOPES) if method.verb == "GET" else [_PLATFORM],
    }
    if method.request is not None:
        document["request"] = {"$ref": _add_schema(method.request, schemas)}
    return document


def _resource(method: Method) -> tuple[str, str, str]:
    """The path's one parameter as clients know it: its name, the template of its value, and what comes after it."""
    resource, colon, verb = method.path.partition(":")
    if not resource.endswith("}"):
        parent, _, collection = resource.rpartition("/")
        # Operations are listed as google.longrunning does it.
        name = "name" if method.id == "projects.operations.list" else "parent"
        return name, parent, f"/{collection}{colon}{verb}"
    return ("resource" if "Iam" in verb else "name"), resource, colon + verb


def _add_schema(kind: type[msgspec.Struct], schemas: dict[str, Any]) -> str:
    """Put a message and all that it holds into `schemas`; its name there."""
    name = _NESTED.get(kind) or f"{_PREFIXES[kind.__module__]}__{kind.__name__}"
    if name not in schemas:
        schemas[name] = schema = {"id": name, "type": "object", "properties": {}}
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        schema["properties"] = {
            each.encode_name: _property(each.type, schemas) for each in info.fields if not _is_hidden(each.type)
        }
    return name


def _is_hidden(info: msgspec.inspect.Type) -> bool:
    return isinstance(info, msgspec.inspect.Metadata) and bool((info.extra or {}).get("hidden"))


def _property(info: msgspec.inspect.Type, schemas: dict[str, Any]) -> dict[str, Any]:
    match info:
        case msgspec.inspect.Metadata(type=inner, extra=extra):
            return {**_property(inner, schemas), **(extra or {})}
        case msgspec.inspect.UnionType(types=types):
            given = [each for each in types if not isinstance(each, msgspec.inspect.NoneType)]
            return _property(given[0], schemas) if len(given) == 1 else dict(_ANYTHING)
        case msgspec.inspect.StructType(cls=cls):
            return {"$ref": _add_schema(cls, schemas)}
        case msgspec.inspect.ListType(item_type=item):
            return {"type": "array", "items": _property(item, schemas)}
        case msgspec.inspect.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _property(value, schemas)}
        case msgspec.inspect.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case msgspec.inspect.CustomType(cls=cls) if cls is Int64:
            return {"type": "string", "format": "int64"}
        case msgspec.inspect.StrType():
            return {"type": "string"}
        case msgspec.inspect.BoolType():
            return {"type": "boolean"}
        case msgspec.inspect.IntType():
            return {"type": "integer", "format": "int32"}
        case msgspec.inspect.FloatType():
            return {"type": "number", "format": "double"}
    return dict(_ANYTHING)
