"""Errors in the shape of the Cloud Storage JSON API, which is older than google.rpc.Status.

    {"error": {"code": 404, "message": "…", "errors": [{"message": "…", "domain": "global", "reason": "notFound"}]}}

Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from enginehouse.core import errors

_REASONS: tuple[tuple[type[errors.EngineError], str], ...] = (
    (errors.InvalidArgument, "invalid"),
    (errors.OutOfRange, "invalid"),
    (errors.ConditionNotMet, "conditionNotMet"),
    (errors.NotEmpty, "conflict"),
    (errors.FailedPrecondition, "failedPrecondition"),
    (errors.Unauthenticated, "required"),
    (errors.PermissionDenied, "forbidden"),
    (errors.NotFound, "notFound"),
    (errors.AlreadyExists, "conflict"),
    (errors.Aborted, "conflict"),
    (errors.ResourceExhausted, "rateLimitExceeded"),
)
_OTHER_REASON = "backendError"


def error_response(error: errors.EngineError) -> Response:
    """The answer to a request that failed with `error`; a field to blame becomes `location`."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), _OTHER_REASON)
    message = error.violations[0].description if error.violations else error.message
    return plain_error(error.http_status, reason, message, location=error.field)


def plain_error(status: int, reason: str, message: str, *, location: str | None = None) -> Response:
    """An error that only HTTP knows: a method not allowed, a range that can't be satisfied."""
    detail: dict[str, Any] = {"message": message, "domain": "global", "reason": reason}
    if location is not None:
        detail |= {"locationType": "parameter", "location": location}
    body = {"error": {"code": status, "message": message, "errors": [detail]}}
    return Response(orjson.dumps(body), status, media_type="application/json; charset=UTF-8")


def method_not_allowed(method: str, allowed: list[str]) -> Response:
    """405 with the methods that would do."""
    response = plain_error(HTTPStatus.METHOD_NOT_ALLOWED, "methodNotAllowed", f"{method} is not allowed here.")
    response.headers["Allow"] = ", ".join(allowed)
    return response
