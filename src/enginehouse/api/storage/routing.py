"""Routes over the path as it was sent.

An object's name is one percent-encoded segment, so `a%2Fb` must not be taken for two: routes match `raw_path`, and
each parameter is decoded once, alone. Errors become the storage API's own shape here, for every route.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import quote, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from enginehouse.api.storage.call import Call
from enginehouse.api.storage.errors import error_response, method_not_allowed
from enginehouse.api.storage.kept import KeptAnswers
from enginehouse.core.errors import EngineError, Internal, InvalidArgument
from enginehouse.storage.base import ObjectStore

_LOG = logging.getLogger(__name__)
CLIENT_CLOSED_REQUEST = 499
"""Nobody reads it: the client is gone. nginx logs the same."""

_STORAGE_PATH = re.compile(rb"/(?:(?:(?:resumable/)?upload/|download/|batch/)?storage/)")

Handler = Callable[[Call], Awaitable[Response]]


class RawPathRoute(BaseRoute):
    """One path of the API and the handlers of its methods."""

    def __init__(self, store: ObjectStore, template: str, handlers: Mapping[str, Handler]) -> None:
        """
        Args:
            store: given to the handlers.
            template: the path, with `{name}` for a percent-encoded segment; a `*` at its end takes all that follows.
            handlers: by method; GET serves HEAD too.
        """
        self.template = template
        self._store = store
        self._handlers = dict(handlers)
        if "GET" in self._handlers:
            self._handlers.setdefault("HEAD", self._handlers["GET"])
        pattern = re.escape(template).replace(r"\*", ".*")
        self._pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", pattern).encode())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match by the path alone; a wrong method is answered by `handle`."""
        if scope["type"] != "http":
            return Match.NONE, {}
        found = self._pattern.fullmatch(raw_path(scope))
        return (Match.FULL, {"path_params": found.groupdict()}) if found else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        response = await self._respond(Request(scope, receive), scope["path_params"])
        await response(scope, receive, send)

    async def _respond(self, request: Request, segments: Mapping[str, bytes]) -> Response:
        handler = self._handlers.get(request.method)
        if handler is None:
            return method_not_allowed(request.method, sorted(self._handlers))
        try:
            path = {name: decode_segment(segment) for name, segment in segments.items()}
            return await handler(Call(self._store, request, path))
        except EngineError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:
            _LOG.exception("%s %s failed", request.method, request.url.path)
            return error_response(Internal("The engine failed on this request; its log says why."))


class StorageApp:
    """An ASGI application that answers the storage API's paths by its routes and hands everything else on.

    The routes know no errors but their own, so that they can do without the layers that an application of other
    routes has around these, and without being looked for among them: a small object is fetched in half the time.

    Args:
        routes: of the storage API.
        app: the rest of the engine.
        kept: answers that need no route.
    """

    def __init__(self, routes: Sequence[BaseRoute], app: ASGIApp, kept: KeptAnswers) -> None:
        self._routes = routes
        self._app = app
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _STORAGE_PATH.match(raw_path(scope)):
            answer = self._kept.find(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
            for route in self._routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope)
                    await route.handle(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def raw_path(scope: Scope) -> bytes:
    """The path of a request as it was sent, percent-encoded."""
    return scope.get("raw_path") or quote(scope["path"]).encode()


def decode_segment(segment: bytes) -> str:
    """Percent-encoded UTF-8 as text.

    Raises:
        InvalidArgument: it is something else.
    """
    try:
        return unquote(segment.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgument("The path is not percent-encoded UTF-8.") from None
