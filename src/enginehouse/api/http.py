"""What all APIs share: JSON answers, errors, query parameters.

In: Starlette requests. Out: values that the rooms below understand, and their messages or errors as answers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.fields import Selection, parse_fields, select
from enginehouse.core import errors
from enginehouse.core.cases import snake_case
from enginehouse.core.errors import EngineError, Internal, InvalidArgument
from enginehouse.core.filters import parse_filter
from enginehouse.schemas.wire import Message, decode, to_builtins

_log = logging.getLogger(__name__)

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
_ALT = ("json", "media", "")
M = TypeVar("M", bound=Message)
Handler = Callable[[Request], Awaitable[Response]]
_INVOCATION = re.compile(r"\binvocation-id/(\S+)")


def json_response(request: Request, value: Any, *, status: int = 200) -> Response:
    """`value` as JSON, indented unless the client asks for `prettyPrint=false`, as Google's APIs do."""
    if status < HTTPStatus.BAD_REQUEST:
        value = select(value, fields_of(request))
    pretty = request.query_params.get("prettyPrint", "true") != "false"
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 if pretty else 0)
    return Response(body, status, media_type="application/json")


def message_response(request: Request, message: Message) -> Response:
    return json_response(request, to_builtins(message))


def fields_of(request: Request) -> Selection | None:
    """What the client wants of the answer (`fields`); None for all of it."""
    return parse_fields(request.query_params.get("fields", ""))


def caller_of(request: Request) -> str:
    """What tells one run of a client from all others, also when it sends a request again; empty for most clients.

    gcloud names its invocation in the User-Agent; others may send the header Idempotency-Key (an IETF draft).
    """
    found = _INVOCATION.search(request.headers.get("user-agent", ""))
    return request.headers.get("idempotency-key", "") or (found[1] if found else "")


def error_response(request: Request, error: EngineError) -> Response:
    return json_response(request, error.to_http_body(), status=error.http_status)


async def read_message(request: Request, kind: type[M], *, max_bytes: int) -> M:
    """The request's body as a message; refuses bodies above `max_bytes` without reading them whole."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise InvalidArgument(f"The request body is larger than {max_bytes} bytes.")
    return decode(kind, bytes(body))


def page_of(request: Request) -> dict[str, Any]:
    """`page_size` and `page_token` of a list request."""
    text = request.query_params.get("pageSize", "0")
    try:
        size = int(text)
    except ValueError:
        size = -1
    if size < 0:
        raise InvalidArgument(f"{text!r} is not a page size; give a number from 1 to 100.", field="page_size")
    return {
        "page_size": min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
        "page_token": request.query_params.get("pageToken", ""),
    }


def list_query_of(request: Request) -> dict[str, Any]:
    """`page_of` and the parsed `filter`."""
    return {**page_of(request), "wanted": parse_filter(request.query_params.get("filter", ""))}


def update_mask_of(request: Request) -> frozenset[str]:
    """The paths of `updateMask`, in snake case whatever the client wrote."""
    text = request.query_params.get("updateMask", "")
    return frozenset(snake_case(part.strip()) for part in text.split(",") if part.strip())


def endpoint(handler: Handler) -> Handler:
    """Answer core errors of `handler` as the API's, and anything else by a 500 with a line in the engine's log.

    Parameters that no answer can meet (`alt`, `fields`) are refused before anything is done.
    """

    async def answer(request: Request) -> Response:
        try:
            if request.query_params.get("alt", "json") not in _ALT:
                raise InvalidArgument("Answers are JSON; leave alt out or send alt=json.", field="alt")
            fields_of(request)
            return await handler(request)
        except EngineError as error:
            return error_response(request, error)
        except Exception:
            _log.exception("%s %s failed", request.method, request.url.path)
            return error_response(request, Internal("Internal error encountered; the engine's log tells more."))

    return answer


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run blocking work beside the event loop."""
    return await run_in_threadpool(function, *args, **kwargs)


async def on_http_exception(request: Request, exception: Exception) -> Response:
    """Starlette's own 404 and 405 in the API's error shape."""
    assert isinstance(exception, HTTPException)
    kind: type[EngineError] = errors.NotFound if exception.status_code == 404 else errors.InvalidArgument
    error = kind(f"{request.method} {request.url.path}: {exception.detail}.")
    body = error.to_http_body()
    body["error"]["code"] = exception.status_code
    return json_response(request, body, status=exception.status_code)
