"""The Open Inference Protocol, version 2, over REST: what Triton's and KServe's clients speak.

    GET  /v2/health/live, /v2/health/ready, /v2
    GET  /v2/models/M[/versions/V], /v2/models/M[/versions/V]/ready
    POST /v2/models/M[/versions/V]/infer

The protocol knows no projects: models are those of the engine's default project, or of the one that the query names
(`?project=P`). Errors are `{"error": "…"}`, as the protocol has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse import __version__
from enginehouse.api.http import Handler
from enginehouse.core.errors import EngineError, InvalidArgument
from enginehouse.serving.inference import Inference, Target
from enginehouse.serving.open_inference import as_json, platform_of, tensor_metadata


@dataclass(frozen=True)
class OpenInference:
    """The handlers.

    Args:
        inference: asks the versions.
        project: the default one.
    """

    inference: Inference
    project: str
    max_body_bytes: int

    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route("/v2", _endpoint(self._server), methods=["GET"]),
            Route("/v2/health/live", _endpoint(self._healthy), methods=["GET"]),
            Route("/v2/health/ready", _endpoint(self._healthy), methods=["GET"]),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(model, _endpoint(self._model), methods=["GET"]),
                Route(f"{model}/ready", _endpoint(self._ready), methods=["GET"]),
                Route(f"{model}/infer", _endpoint(self._infer), methods=["POST"]),
            ]
        return routes

    async def _server(self, _request: Request) -> Response:
        return _json({"name": "enginehouse", "version": __version__, "extensions": []})

    async def _healthy(self, _request: Request) -> Response:
        return Response()

    async def _ready(self, request: Request) -> Response:
        self.inference.version(self._target(request))
        return Response()

    async def _model(self, request: Request) -> Response:
        version = self.inference.version(self._target(request))
        signature = await self.inference.signature(version)
        return _json(
            {
                "name": version.name.model_id,
                "versions": [version.name.version_id],
                "platform": platform_of(version.framework),
                "inputs": tensor_metadata(signature["inputs"]),
                "outputs": tensor_metadata(signature["outputs"]),
            }
        )

    async def _infer(self, request: Request) -> Response:
        told = await self._read(request)
        parameters = told.get("parameters") or {}
        signature_name = str(parameters.get("signature_name", "")) if isinstance(parameters, dict) else ""
        inferred = await self.inference.infer(self._target(request), told.get("inputs"), signature_name)
        wanted = [each.get("name") for each in told.get("outputs") or [] if isinstance(each, dict)]
        result = {
            "model_name": inferred.version.name.model_id,
            "model_version": inferred.version.name.version_id,
            "outputs": [as_json(each) for each in inferred.outputs if not wanted or each["name"] in wanted],
        }
        return _json({**result, "id": told["id"]} if "id" in told else result)

    def _target(self, request: Request) -> Target:
        project = request.query_params.get("project") or self.project
        return Target(project, request.path_params["model"], request.path_params.get("version"))

    async def _read(self, request: Request) -> dict[str, Any]:
        if int(request.headers.get("content-length", 0)) > self.max_body_bytes:
            raise InvalidArgument(f"Request payload size exceeds the limit: {self.max_body_bytes} bytes.")
        if "inference-header-content-length" in request.headers:
            raise InvalidArgument("Binary tensors are not taken; send their data as JSON.", field="inputs")
        data = await request.body()
        try:
            told = orjson.loads(data)
        except ValueError as error:
            raise InvalidArgument(f"Invalid JSON in the request body: {error}") from None
        if not isinstance(told, dict):
            raise InvalidArgument("The request body must be a JSON object.")
        return told


def _endpoint(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except EngineError as error:
            return _json({"error": str(error)}, status=error.http_status)

    return answer


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
