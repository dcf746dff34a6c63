"""The methods of ml v1 on jobs, models, versions and operations.

A handler reads the request, calls one method of a service and writes its message. Services block (SQLite, files), so
they run in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.http import (
    Handler,
    caller_of,
    in_thread,
    list_query_of,
    message_response,
    read_message,
    update_mask_of,
)
from enginehouse.core.names import JobName, ModelName, OperationName, VersionName
from enginehouse.jobs.service import JobService
from enginehouse.registry.service import RegistryService
from enginehouse.schemas.ml_v1 import (
    CancelJobRequest,
    Empty,
    Job,
    Model,
    Operation,
    SetDefaultVersionRequest,
    Version,
)

_SETTLE_S = 5.0
_SETTLE_POLL_S = 0.05


@dataclass(frozen=True)
class MlApi:
    """The handlers of ml v1 over the services."""

    jobs: JobService
    registry: RegistryService
    max_body_bytes: int

    def handlers(self) -> dict[str, Handler]:
        """Handlers by method id."""
        return {
            "projects.jobs.create": self._create_job,
            "projects.jobs.list": self._list_jobs,
            "projects.jobs.get": self._get_job,
            "projects.jobs.patch": self._patch_job,
            "projects.jobs.cancel": self._cancel_job,
            "projects.models.create": self._create_model,
            "projects.models.list": self._list_models,
            "projects.models.get": self._get_model,
            "projects.models.patch": self._patch_model,
            "projects.models.delete": self._delete_model,
            "projects.models.versions.create": self._create_version,
            "projects.models.versions.list": self._list_versions,
            "projects.models.versions.get": self._get_version,
            "projects.models.versions.patch": self._patch_version,
            "projects.models.versions.delete": self._delete_version,
            "projects.models.versions.setDefault": self._set_default_version,
            "projects.operations.list": self._list_operations,
            "projects.operations.get": self._get_operation,
            "projects.operations.cancel": self._cancel_operation,
        }

    async def _answer(self, request: Request, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Response:
        return message_response(request, await in_thread(method, *args, **kwargs) or Empty())

    # --- jobs ---

    async def _create_job(self, request: Request) -> Response:
        job = await read_message(request, Job, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.create, request.path_params["project"], job, caller_of(request))

    async def _list_jobs(self, request: Request) -> Response:
        return await self._answer(request, self.jobs.list, request.path_params["project"], **list_query_of(request))

    async def _get_job(self, request: Request) -> Response:
        return await self._answer(request, self.jobs.get, _job_name(request))

    async def _patch_job(self, request: Request) -> Response:
        job = await read_message(request, Job, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.patch, _job_name(request), job, update_mask_of(request))

    async def _cancel_job(self, request: Request) -> Response:
        await read_message(request, CancelJobRequest, max_bytes=self.max_body_bytes)
        return await self._answer(request, self.jobs.cancel, _job_name(request))

    # --- models ---

    async def _create_model(self, request: Request) -> Response:
        model = await read_message(request, Model, max_bytes=self.max_body_bytes)
        project = request.path_params["project"]
        return await self._answer(request, self.registry.create_model, project, model, caller_of(request))

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
        operation = await in_thread(self.registry.create_version, _model_name(request), version, caller_of(request))
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
        await read_message(request, SetDefaultVersionRequest, max_bytes=self.max_body_bytes)
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
