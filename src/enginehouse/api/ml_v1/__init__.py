"""The routes of ml v1: one line per method of the API.

A route reads the request, calls one method of a service and writes its message. Services block (SQLite, files), so
they run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, in_thread, list_query_of, message_response, read_message, update_mask_of
from enginehouse.core.names import JobName, ModelName, OperationName, VersionName
from enginehouse.jobs.service import JobService
from enginehouse.registry.service import RegistryService
from enginehouse.schemas.ml_v1 import Empty, Job, Model, Operation, Version

_PROJECT = "/v1/projects/{project}"
_JOB = _PROJECT + "/jobs/{job}"
_MODEL = _PROJECT + "/models/{model}"
_VERSION = _MODEL + "/versions/{version}"
_OPERATION = _PROJECT + "/operations/{operation}"

_SETTLE_S = 5.0
_SETTLE_POLL_S = 0.05

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class MlApi:
    """The handlers of ml v1 over the services."""

    jobs: JobService
    registry: RegistryService
    max_body_bytes: int

    def routes(self) -> list[BaseRoute]:
        """All routes; those with a `:verb` first, since `{job}` would swallow it."""
        table: list[tuple[str, str, Handler]] = [
            ("POST", _JOB + ":cancel", self._cancel_job),
            ("POST", _PROJECT + "/jobs", self._create_job),
            ("GET", _PROJECT + "/jobs", self._list_jobs),
            ("GET", _JOB, self._get_job),
            ("PATCH", _JOB, self._patch_job),
            ("POST", _PROJECT + "/models", self._create_model),
            ("GET", _PROJECT + "/models", self._list_models),
            ("GET", _MODEL, self._get_model),
            ("PATCH", _MODEL, self._patch_model),
            ("DELETE", _MODEL, self._delete_model),
            ("POST", _VERSION + ":setDefault", self._set_default_version),
            ("POST", _MODEL + "/versions", self._create_version),
            ("GET", _MODEL + "/versions", self._list_versions),
            ("GET", _VERSION, self._get_version),
            ("PATCH", _VERSION, self._patch_version),
            ("DELETE", _VERSION, self._delete_version),
            ("POST", _OPERATION + ":cancel", self._cancel_operation),
            ("GET", _PROJECT + "/operations", self._list_operations),
            ("GET", _OPERATION, self._get_operation),
        ]
        return [Route(path, endpoint(handler), methods=[verb]) for verb, path, handler in table]

    async def _answer(self, request: Request, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Response:
        return message_response(request, await in_thread(method, *args, **kwargs) or Empty())

    # --- jobs ---

    async def _create_job(self, request: Request) -> Response:
        job = await read_message(request, Job, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.create, request.path_params["project"], job)

    async def _list_jobs(self, request: Request) -> Response:
        return await self._answer(request, self.jobs.list, request.path_params["project"], **list_query_of(request))

    async def _get_job(self, request: Request) -> Response:
        return await self._answer(request, self.jobs.get, _job_name(request))

    async def _patch_job(self, request: Request) -> Response:
        job = await read_message(request, Job, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.patch, _job_name(request), job, update_mask_of(request))

    async def _cancel_job(self, request: Request) -> Response:
        await read_message(request, Empty, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.cancel, _job_name(request))

    # --- models ---

    async def _create_model(self, request: Request) -> Response:
        model = await read_message(request, Model, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.registry.create_model, request.path_params["project"], model)

    async def _list_models(self, request: Request) -> Response:
        project = request.path_params["project"]
        return await self._answer(request, self.registry.list_models, project, **list_query_of(request))

    async def _get_model(self, request: Request) -> Response:
        return await self._answer(request, self.registry.get_model, _model_name(request))

    async def _patch_model(self, request: Request) -> Response:
        model = await read_message(request, Model, max_bytes=self.max_body_bytes)
        mask = update_mask_of(request)
        return await self._answer(request, self.registry.patch_model, _model_name(request), model, mask)

    async def _delete_model(self, request: Request) -> Response:
        return await self._answer(request, self.registry.delete_model, _model_name(request))

    # --- versions ---

    async def _create_version(self, request: Request) -> Response:
        version = await read_message(request, Version, max_bytes=self.max_body_bytes)
        operation = await in_thread(self.registry.create_version, _model_name(request), version)
        return message_response(request, await self._settled(operation))

    async def _settled(self, operation: Operation) -> Operation:
        """The operation when it is done or after some seconds: gcloud would look again only five seconds later."""
        name = OperationName(*operation.name.split("/")[1::2])
        deadline = asyncio.get_running_loop().time() + _SETTLE_S
        while not operation.done and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_SETTLE_POLL_S)
            operation = await in_thread(self.registry.get_operation, name)
        return operation

    async def _list_versions(self, request: Request) -> Response:
        return await self._answer(
            request, self.registry.list_versions, _model_name(request), **list_query_of(request)
        )

    async def _get_version(self, request: Request) -> Response:
        return await self._answer(request, self.registry.get_version, _version_name(request))

    async def _patch_version(self, request: Request) -> Response:
        version = await read_message(request, Version, max_bytes=self.max_body_bytes)
        mask = update_mask_of(request)
        return await self._answer(request, self.registry.patch_version, _version_name(request), version, mask)

    async def _delete_version(self, request: Request) -> Response:
        return await self._answer(request, self.registry.delete_version, _version_name(request))

    async def _set_default_version(self, request: Request) -> Response:
        await read_message(request, Empty, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.registry.set_default_version, _version_name(request))

    # --- operations ---

    async def _get_operation(self, request: Request) -> Response:
        return await self._answer(request, self.registry.get_operation, _operation_name(request))

    async def _list_operations(self, request: Request) -> Response:
        project = request.path_params["project"]
        return await self._answer(request, self.registry.list_operations, project, **list_query_of(request))

    async def _cancel_operation(self, request: Request) -> Response:
        return await self._answer(request, self.registry.cancel_operation, _operation_name(request))


def _job_name(request: Request) -> JobName:
    return JobName(request.path_params["project"], request.path_params["job"])


def _model_name(request: Request) -> ModelName:
    return ModelName(request.path_params["project"], request.path_params["model"])


def _version_name(request: Request) -> VersionName:
    return VersionName(request.path_params["project"], request.path_params["model"], request.path_params["version"])


def _operation_name(request: Request) -> OperationName:
    return OperationName(request.path_params["project"], request.path_params["operation"])
