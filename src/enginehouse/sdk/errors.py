"""From an HTTP answer or a broken connection to the error tree.

EngineError
├── (the classes of core.errors)   what the engine answered
└── Unavailable
    └── EngineUnreachable          nothing answered: no engine, or it went away
"""

from __future__ import annotations

import json
from typing import Any

from enginehouse.core import errors
from enginehouse.core.errors import EngineError, FieldViolation, Unavailable


class EngineUnreachable(Unavailable):
    """No engine answers at the address; the message says how to start one."""


_BY_CODE: dict[int, type[EngineError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.AlreadyExists,
    412: errors.FailedPrecondition,
    416: errors.OutOfRange,
    429: errors.ResourceExhausted,
    500: errors.Internal,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}


def error_from_rpc_status(status: dict[str, Any]) -> EngineError:
    """The error of a google.rpc.Status with a gRPC code, as a finished operation carries it."""
    by_grpc_code = {cls.code: cls for cls in errors.BY_STATUS.values()}
    return _build(by_grpc_code.get(int(status.get("code", 13)), errors.Internal), status)


def error_from_response(http_status: int, body: bytes) -> EngineError:
    """The error of an HTTP answer, whether or not its body has the API's shape.

    Args:
        http_status: 4xx or 5xx.
        body: as received; `{"error": {code, message, status, details}}` normally.
    """
    try:
        told = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        told = None
    if not isinstance(told, dict):
        text = told if isinstance(told, str) else body[:2000].decode("utf-8", "replace").strip()
        return _of_code(http_status)(f"HTTP {http_status}: {text}" if text else f"HTTP {http_status}")
    return _build(errors.BY_STATUS.get(str(told.get("status", "")), _of_code(http_status)), told)


def _of_code(http_status: int) -> type[EngineError]:
    return _BY_CODE.get(http_status, errors.Internal if http_status >= 500 else errors.InvalidArgument)


def _build(cls: type[EngineError], told: dict[str, Any]) -> EngineError:
    violations = [
        FieldViolation(str(v.get("field", "")), str(v.get("description", "")))
        for detail in told.get("details") or []
        if isinstance(detail, dict)
        for v in detail.get("fieldViolations") or []
    ]
    error = cls(violations=violations)
    error.message = str(told.get("message", "")) or error.message
    error.args = (error.message,)
    return error
