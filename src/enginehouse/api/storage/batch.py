"""`/batch/storage/v1`: many small calls in one `multipart/mixed` request, each answered by its own route.

Uploads and downloads are not allowed in it, as in Cloud Storage. Source:
https://cloud.google.com/storage/docs/batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email import policy
from email.message import Message
from email.parser import BytesParser
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope

from enginehouse.api.storage.call import Call
from enginehouse.api.storage.errors import plain_error
from enginehouse.api.storage.routing import Handler, RawPathRoute
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.ids import new_id

MAX_CALLS = 1000
"""What google-cloud-storage sends at most; Cloud Storage itself recommends 100."""
MAX_BATCH_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class _Inner:
    """One call of a batch."""

    content_id: str
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def batch_handler(routes: Sequence[RawPathRoute]) -> Handler:
    """The handler that answers each call of a batch by one of `routes`."""
    allowed = [route for route in routes if route.template.startswith("/storage/")]

    async def handle(call: Call) -> Response:
        inner = _parse(call.request.headers.get("content-type", ""), await _read(call))
        boundary = f"batch_{new_id()}"
        answers = [await _answer(one, call.request.scope, allowed, boundary) for one in inner]
        body = b"".join(answers) + f"--{boundary}--\r\n".encode()
        return Response(body, headers={"content-type": f"multipart/mixed; boundary={boundary}"})

    return handle


async def _read(call: Call) -> bytes:
    body = bytearray()
    async for part in call.request.stream():
        body += part
        if len(body) > MAX_BATCH_BYTES:
            raise InvalidArgument(f"The batch is larger than {MAX_BATCH_BYTES} bytes.")
    return bytes(body)


def _parse(content_type: str, body: bytes) -> list[_Inner]:
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = BytesParser(policy=policy.compat32).parsebytes(head + body)
    parts = message.get_payload()
    if not message.is_multipart() or not isinstance(parts, list):
        raise InvalidArgument("A batch must be multipart/mixed.")
    if len(parts) > MAX_CALLS:
        raise InvalidArgument(f"A batch has at most {MAX_CALLS} calls; this one has {len(parts)}.")
    return [_inner(part) for part in parts if isinstance(part, Message)]


def _inner(part: Message) -> _Inner:
    payload = part.get_payload(decode=True)
    text = payload if isinstance(payload, bytes) else b""
    first, _, rest = text.lstrip().partition(b"\n")
    words = first.decode("latin-1").split()
    if len(words) < 2:
        raise InvalidArgument("A part of the batch is no HTTP request.")
    request = BytesParser(policy=policy.compat32).parsebytes(rest)
    body = request.get_payload(decode=True)
    return _Inner(
        content_id=str(part.get("Content-ID", "")).strip("<>"),
        method=words[0],
        target=words[1],
        headers=[(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in request.items()],
        body=body if isinstance(body, bytes) else b"",
    )


async def _answer(inner: _Inner, outer: Scope, routes: Sequence[RawPathRoute], boundary: str) -> bytes:
    """One part of the answer, in the form that the request's part had."""
    try:
        target = urlsplit(inner.target)
    except ValueError:
        raise InvalidArgument("A part of the batch has no URL.") from None
    scope: Scope = {
        **outer,
        "method": inner.method,
        "raw_path": target.path.encode("ascii", "replace"),
        "path": unquote(target.path),
        "query_string": target.query.encode("ascii", "replace"),
        "headers": inner.headers + [(name, value) for name, value in outer["headers"] if name == b"host"],
    }
    response = _Collected()
    for route in routes:
        match, child = route.matches(scope)
        if match is Match.FULL and "alt=media" not in target.query.split("&"):
            await route.handle({**scope, **child}, _body_of(inner), response.send)
            break
    else:
        error = plain_error(HTTPStatus.NOT_FOUND, "notFound", f"There is nothing at {target.path} for a batch.")
        await error(scope, _body_of(inner), response.send)
    lines = [
        f"--{boundary}",
        "Content-Type: application/http",
        f"Content-ID: <response-{inner.content_id}>",
        "",
        f"HTTP/1.1 {response.status} {_phrase(response.status)}",
        *(f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in response.headers),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + response.body + b"\r\n"


class _Collected:
    """An ASGI answer caught in memory."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def send(self, message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message["headers"])
        else:
            self.body += message.get("body", b"")


def _body_of(inner: _Inner) -> Receive:
    async def receive() -> AsgiMessage:
        return {"type": "http.request", "body": inner.body, "more_body": False}

    return receive


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
