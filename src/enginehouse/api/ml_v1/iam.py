"""The IAM methods of jobs and models: getIamPolicy, setIamPolicy, testIamPermissions."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from enginehouse.api.http import Handler, in_thread, message_response, read_message
from enginehouse.core.names import JobName, ModelName
from enginehouse.iam.service import PolicyService
from enginehouse.schemas.iam import SetIamPolicyRequest, TestIamPermissionsRequest


@dataclass(frozen=True)
class IamApi:
    """The handlers, the same for both kinds of resource."""

    policies: PolicyService
    max_body_bytes: int

    def handlers(self) -> dict[str, Handler]:
        """Handlers by method id."""
        verbs = {"getIamPolicy": self._get, "setIamPolicy": self._set, "testIamPermissions": self._test}
        return {f"projects.{kind}.{verb}": verbs[verb] for kind in ("jobs", "models") for verb in verbs}

    async def _get(self, request: Request) -> Response:
        return message_response(request, await in_thread(self.policies.get, _name(request)))

    async def _set(self, request: Request) -> Response:
        message = await read_message(request, SetIamPolicyRequest, max_bytes=self.max_body_bytes)
        return message_response(request, await in_thread(self.policies.set, _name(request), message))

    async def _test(self, request: Request) -> Response:
        message = await read_message(request, TestIamPermissionsRequest, max_bytes=self.max_body_bytes)
        return message_response(request, await in_thread(self.policies.test, _name(request), message))


def _name(request: Request) -> JobName | ModelName:
    params = request.path_params
    if "job" in params:
        return JobName(params["project"], params["job"])
    return ModelName(params["project"], params["model"])
