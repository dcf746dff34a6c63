"""What the gateway itself refuses, with the HTTP status that tells it.

EngineError
├── InvalidArgument
│   ├── BadRequest              400   not HTTP/1.1, or a request that could be read in two ways
│   ├── Misdirected             421   a host that is not this connection's
│   ├── HeadTooLarge            431
│   └── VersionNotSupported     505
├── PermissionDenied
│   └── ProxyAuthRequired       407   a stranger without the engine's token
├── FailedPrecondition
│   └── LoopDetected            508   the request has been here before
├── Unavailable
│   ├── TooManyConnections      503
│   └── BadGateway              502   the origin, or the upstream proxy, can't be reached or refuses
└── DeadlineExceeded
    ├── GatewayTimeout          504   the origin does not answer
    └── RequestTimeout          408   the client does not go on
"""

from __future__ import annotations

from enginehouse.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unavailable,
)


class BadRequest(InvalidArgument):
    http_status = 400


class Misdirected(InvalidArgument):
    http_status = 421


class HeadTooLarge(InvalidArgument):
    http_status = 431


class VersionNotSupported(InvalidArgument):
    http_status = 505


class ProxyAuthRequired(PermissionDenied):
    http_status = 407


class LoopDetected(FailedPrecondition):
    http_status = 508


class TooManyConnections(Unavailable):
    http_status = 503


class GatewayTimeout(DeadlineExceeded):
    http_status = 504


class BadGateway(Unavailable):
    http_status = 502


class RequestTimeout(DeadlineExceeded):
    http_status = 408
