"""What the original had no method for in serving: shared traffic, the state of a version's servers, replacing them.

GET|PUT|DELETE /enginehouse/v1/projects/P/models/M/traffic
GET            /enginehouse/v1/projects/P/models/M/versions/V/serving
POST           /enginehouse/v1/projects/P/models/M/versions/V/restart
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, in_thread, json_response
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.names import ModelName, VersionName
from enginehouse.registry.traffic import TrafficService

_MODEL = "/enginehouse/v1/projects/{project}/models/{model}"


@dataclass(frozen=True)
class ServingApi:
    """The handlers.

    Args:
        schema: what a version's model tells of its inputs and outputs.
        nodes: how a version is served now.
        restart: replaces a version's nodes.
    """

    traffic: TrafficService
    schema: Callable[[VersionName], dict[str, Any]]
    nodes: Callable[[VersionName], dict[str, Any]]
    restart: Callable[[VersionName], Awaitable[None]]

    def routes(self) -> list[BaseRoute]:
        version = _MODEL + "/versions/{version}"
        return [
            Route(_MODEL + "/traffic", endpoint(self._get_traffic), methods=["GET"]),
            Route(_MODEL + "/traffic", endpoint(self._set_traffic), methods=["PUT"]),
            Route(_MODEL + "/traffic", endpoint(self._clear_traffic), methods=["DELETE"]),
            Route(version + "/serving", endpoint(self._serving), methods=["GET"]),
            Route(version + "/restart", endpoint(self._restart), methods=["POST"]),
        ]

    async def _get_traffic(self, request: Request) -> Response:
        return json_response(request, await in_thread(self.traffic.get, _model(request)))

    async def _set_traffic(self, request: Request) -> Response:
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            raise InvalidArgument(f"The request body is not valid JSON: {error}.") from None
        if not isinstance(body, dict) or not isinstance(body.get("shares"), dict):
            raise InvalidArgument('Send {"shares": {"v1": 90, "v2": 10}}.', field="shares")
        limits = body.get("rollBack", {})
        if not isinstance(limits, dict):
            raise InvalidArgument("Send an object.", field="roll_back")
        return json_response(request, await in_thread(self.traffic.set, _model(request), body["shares"], limits))

    async def _clear_traffic(self, request: Request) -> Response:
        return json_response(request, await in_thread(self.traffic.clear, _model(request)))

    async def _serving(self, request: Request) -> Response:
        name = _version(request)
        schema = await in_thread(self.schema, name)
        return json_response(request, {**self.nodes(name), "signatures": schema})

    async def _restart(self, request: Request) -> Response:
        await self.restart(_version(request))
        return json_response(request, {})


def _model(request: Request) -> ModelName:
    return ModelName(request.path_params["project"], request.path_params["model"])


def _version(request: Request) -> VersionName:
    return VersionName(request.path_params["project"], request.path_params["model"], request.path_params["version"])
