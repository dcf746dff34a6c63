"""Every error that reaches a user, with its gRPC code, HTTP status and field path.

    EngineError                     (never raised itself)
    ├── InvalidArgument             400 INVALID_ARGUMENT      the request is wrong whatever the state
    ├── FailedPrecondition          400 FAILED_PRECONDITION   the request is fine, the state is not
    │   ├── ConditionNotMet         412                       an if…Match of the request does not hold
    │   └── NotEmpty                409                       a container still holds something
    ├── OutOfRange                  400 OUT_OF_RANGE
    ├── Unauthenticated             401 UNAUTHENTICATED
    ├── PermissionDenied            403 PERMISSION_DENIED
    ├── NotFound                    404 NOT_FOUND
    ├── AlreadyExists               409 ALREADY_EXISTS
    ├── Aborted                     409 ABORTED               lost an optimistic race (etag, lease)
    ├── ResourceExhausted           429 RESOURCE_EXHAUSTED
    ├── Internal                    500 INTERNAL
    ├── Unavailable                 503 UNAVAILABLE
    └── DeadlineExceeded            504 DEADLINE_EXCEEDED

The JSON shape is google.rpc.Status; a wrong field is told as `Field: <snake_case path> Error: <text>` with one
google.rpc.BadRequest detail, as the original service did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field: `field` is a snake_case path (`training_input.package_uris`), `description` a sentence."""

    field: str
    description: str


class EngineError(Exception):
    """Base of all errors that the APIs answer with.

    Args:
        message: what is wrong and what cures it. When `field` is given it becomes the violation's description.
        field: snake_case path of the wrong field, if one field is to blame.
        violations: all wrong fields, when there are several; excludes `field`.
    """

    code: ClassVar[int] = 13
    """gRPC code (google.rpc.Code)."""
    status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str = "", *, field: str | None = None, violations: Sequence[FieldViolation] = ()
    ) -> None:
        if field is not None:
            violations = (FieldViolation(field, message),)
        self.violations = tuple(violations)
        if self.violations:
            message = " ".join(f"Field: {v.field} Error: {v.description}" for v in self.violations)
        self.message = message
        super().__init__(message)

    @property
    def field(self) -> str | None:
        """The first wrong field, or None."""
        return self.violations[0].field if self.violations else None

    def details(self) -> list[dict[str, Any]]:
        """The `details` of google.rpc.Status: one BadRequest when fields are to blame, else empty."""
        if not self.violations:
            return []
        return [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": v.field, "description": v.description} for v in self.violations],
            }
        ]

    def to_rpc_status(self) -> dict[str, Any]:
        """google.rpc.Status with the gRPC code, as long-running operations carry it."""
        status: dict[str, Any] = {"code": self.code, "message": self.message}
        if details := self.details():
            status["details"] = details
        return status

    def to_http_body(self) -> dict[str, Any]:
        """The JSON body of an HTTP error answer: `{"error": {code, message, status, details?}}`."""
        error: dict[str, Any] = {"code": self.http_status, "message": self.message, "status": self.status}
        if details := self.details():
            error["details"] = details
        return {"error": error}


class InvalidArgument(EngineError):
    code, status, http_status = 3, "INVALID_ARGUMENT", 400


class FailedPrecondition(EngineError):
    code, status, http_status = 9, "FAILED_PRECONDITION", 400


class ConditionNotMet(FailedPrecondition):
    http_status = 412


class NotEmpty(FailedPrecondition):
    http_status = 409


class OutOfRange(EngineError):
    code, status, http_status = 11, "OUT_OF_RANGE", 400


class Unauthenticated(EngineError):
    code, status, http_status = 16, "UNAUTHENTICATED", 401


class PermissionDenied(EngineError):
    code, status, http_status = 7, "PERMISSION_DENIED", 403


class NotFound(EngineError):
    code, status, http_status = 5, "NOT_FOUND", 404


class AlreadyExists(EngineError):
    code, status, http_status = 6, "ALREADY_EXISTS", 409


class Aborted(EngineError):
    code, status, http_status = 10, "ABORTED", 409


class ResourceExhausted(EngineError):
    code, status, http_status = 8, "RESOURCE_EXHAUSTED", 429


class Internal(EngineError):
    code, status, http_status = 13, "INTERNAL", 500


class Unavailable(EngineError):
    code, status, http_status = 14, "UNAVAILABLE", 503


class DeadlineExceeded(EngineError):
    code, status, http_status = 4, "DEADLINE_EXCEEDED", 504


BY_STATUS: dict[str, type[EngineError]] = {kind.status: kind for kind in EngineError.__subclasses__()}
"""The errors by their status names, such as "NOT_FOUND"."""


def error_of(status: str, message: str) -> EngineError:
    """The error of a status name; `Internal` where there is none of that name."""
    return BY_STATUS.get(status, Internal)(message)
