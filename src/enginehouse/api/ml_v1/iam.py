"""The IAM methods of jobs and models: getIamPolicy, setIamPolicy, testIamPermissions."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse.api.http import endpoint, in_thread, message_response, read_message
from enginehouse.core.names import JobName, ModelName
from enginehouse.iam.service import PolicyService
from enginehouse.schemas.iam import SetIamPolicyRequest, TestIamPermissionsRequest


@dataclass(frozen=True)
class IamApi:
    """The handlers, the same for both kinds of resource."""

    policies: PolicyService
    max_body_bytes: int

    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = []
        for kind in ("jobs", "models"):
            path = f"/v1/projects/{{project}}/{kind}/{{resource}}"
            routes += [
                Route(path + ":getIamPolicy", endpoint(self._get), methods=["GET"]),
                Route(path + ":setIamPolicy", endpoint(self._set), methods=["POST"]),
                Route(path + ":testIamPermissions", endpoint(self._test), methods=["POST"]),
            ]
        return routes

    async def _get(self, request: Request) -> Response:
        return message_response(request, await in_thread(self.policies.get, _name(request)))

    async def _set(self, request: Request) -> Response:
        message = await read_message(request, SetIamPolicyRequest, max_bytes=self.max_body_bytes)
        return message_response(request, await in_thread(self.policies.set, _name(request), message))

    async def _test(self, request: Request) -> Response:
        message = await read_message(request, TestIamPermissionsRequest, max_bytes=self.max_body_bytes)
        return message_response(request, await in_thread(self.policies.test, _name(request), message))


def _name(request: Request) -> JobName | ModelName:
    kind = JobName if request.url.path.split("/")[4] == "jobs" else ModelName
    return kind(request.path_params["project"], request.path_params["resource"])
