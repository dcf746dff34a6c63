"""One request as the handlers see it: decoded path and query, typed parameters, JSON body."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.fields import parse_fields, select
from enginehouse.core.errors import InvalidArgument
from enginehouse.storage.base import ObjectStore, Preconditions

MAX_JSON_BYTES = 1024 * 1024
_THREADS = ThreadPoolExecutor(40, thread_name_prefix="storage")

P = ParamSpec("P")
T = TypeVar("T")


class Call:
    """A request to the storage API.

    Attributes:
        store: the object store.
        request: for headers and the body's stream.
        path: the decoded segments of the path, by name.
    """

    def __init__(self, store: ObjectStore, request: Request, path: Mapping[str, str]) -> None:
        self.store = store
        self.request = request
        self.path = path
        try:
            query = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise InvalidArgument("The query is not percent-encoded UTF-8.") from None
        self.query = dict(query)
        self._selection = parse_fields(self.query.get("fields", ""))

    @staticmethod
    async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the store, which blocks, in a thread; who is cancelled meanwhile leaves when the call has ended.

        A small object is mostly such calls, and anyio's take twice as long.
        """
        work = asyncio.get_running_loop().run_in_executor(_THREADS, functools.partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def reply(self, body: Mapping[str, Any]) -> Response:
        """A successful answer: the part of `body` that the request's `fields` selects."""
        return self.reply_json(orjson.dumps(select(body, self._selection)))

    @staticmethod
    def reply_json(content: bytes) -> Response:
        """A successful answer that is JSON already."""
        return Response(content, media_type="application/json; charset=UTF-8")

    @property
    def wants_all(self) -> bool:
        """Whether `fields` selects everything."""
        return self._selection is None

    @property
    def base_url(self) -> str:
        """Scheme and host as the client knows them, to build links that it can reach."""
        scope = self.request.scope
        server = scope.get("server") or ("localhost", None)
        host: str = self.request.headers.get("host") or ":".join(str(part) for part in server if part is not None)
        return f"{scope['scheme']}://{host}"

    def integer(self, name: str) -> int | None:
        """An int64 of the query; None when it is absent.

        Raises:
            InvalidArgument: it is no such number.
        """
        text = self.query.get(name)
        if text is None:
            return None
        return parse_int64(text, name)

    def flag(self, name: str) -> bool:
        """A boolean of the query, false when it is absent; Python's clients write `True`, others `true`."""
        return self.query.get(name, "").lower() in ("true", "1")

    def required(self, name: str) -> str:
        """A text of the query that must be there and not empty."""
        text: str = self.query.get(name, "")
        if not text:
            raise InvalidArgument(f"Required parameter: {name}", field=name)
        return text

    def preconditions(self, target: str = "") -> Preconditions:
        """The query's preconditions on the request's own object, or on the `Source` of a copy."""
        return Preconditions(
            if_generation_match=self.integer(f"if{target}GenerationMatch"),
            if_generation_not_match=self.integer(f"if{target}GenerationNotMatch"),
            if_metageneration_match=self.integer(f"if{target}MetagenerationMatch"),
            if_metageneration_not_match=self.integer(f"if{target}MetagenerationNotMatch"),
        )

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        Raises:
            InvalidArgument: it is something else, or larger than a resource can be.
        """
        body = bytearray()
        async for part in self.request.stream():
            body += part
            if len(body) > MAX_JSON_BYTES:
                raise InvalidArgument(f"The request's JSON is larger than {MAX_JSON_BYTES} bytes.")
        return parse_json_object(bytes(body))


def parse_int64(text: object, name: str) -> int:
    """A number, which JSON carries as a string.

    Raises:
        InvalidArgument: it is no int64, naming `name`.
    """
    try:
        value = int(str(text))
    except ValueError:
        raise InvalidArgument(f"Invalid value for {name}: {text!r} is not a number.", field=name) from None
    if not -(2**63) <= value < 2**63:
        raise InvalidArgument(f"Invalid value for {name}: {text} has more than 64 bits.", field=name)
    return value


def parse_json_object(body: bytes) -> dict[str, Any]:
    """JSON text of an object; white space alone is an empty object.

    Raises:
        InvalidArgument: it is not.
    """
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"Parse Error: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument("The request's JSON must be an object.")
    return value
