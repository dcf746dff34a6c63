"""What the API asks of policies: get, set, test.

A resource without a policy has the empty one. Everybody who reaches the engine may do everything that the policy's
resource knows, so `test` answers with what exists; policies are kept and returned, guarded by their etag.
"""

from __future__ import annotations

from collections.abc import Callable

from enginehouse.core import ids
from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import JobName, ModelName
from enginehouse.iam.permissions import JOB_PERMISSIONS, MODEL_PERMISSIONS
from enginehouse.metadata.base import MetadataStore
from enginehouse.schemas.iam import Policy, SetIamPolicyRequest, TestIamPermissionsRequest, TestIamPermissionsResponse
from enginehouse.schemas.wire import from_builtins, to_builtins

_MASKABLE = frozenset({"bindings", "etag", "version", "audit_configs"})


class PolicyService:
    """The policies of all jobs and models. Thread-safe."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    def get(self, name: JobName | ModelName) -> Policy:
        """The policy of a resource.

        Raises:
            NotFound: no such resource.
        """
        self._require(name)
        value, revision = self._store.get_policy(str(name))
        policy = from_builtins(Policy, value)
        policy.etag = ids.etag(revision)
        return policy

    def set(self, name: JobName | ModelName, request: SetIamPolicyRequest) -> Policy:
        """Replace the policy, or the parts that the mask names; a change since the sent etag was read is refused.

        Raises:
            NotFound: no such resource.
            InvalidArgument: a binding without a role or a member without a type.
            Aborted: the etag is of an earlier policy.
        """
        self._require(name)
        sent = request.policy or Policy()
        _check(sent)
        mask = frozenset(part.strip() for part in request.update_mask.split(",") if part.strip()) or _MASKABLE
        if mask - _MASKABLE:
            raise InvalidArgument(
                f"{', '.join(sorted(mask - _MASKABLE))} can't be updated; these can: {', '.join(sorted(_MASKABLE))}.",
                field="update_mask",
            )

        def change(value: dict[str, object], revision: int) -> dict[str, object]:
            ids.check_etag(sent.etag, revision, kind="policy")
            policy = from_builtins(Policy, value)
            for part in mask - {"etag"}:
                setattr(policy, part, getattr(sent, part))
            return to_builtins(policy)

        self._store.change_policy(str(name), change)
        return self.get(name)

    def test(self, name: JobName | ModelName, request: TestIamPermissionsRequest) -> TestIamPermissionsResponse:
        """Which of the asked permissions the caller has; none on a resource that is not there."""
        known = JOB_PERMISSIONS if isinstance(name, JobName) else MODEL_PERMISSIONS
        for permission in request.permissions:
            if "*" in permission or permission.count(".") != 2:
                raise InvalidArgument(
                    f"{permission!r} is no permission, such as ml.models.predict.", field="permissions"
                )
        try:
            self._require(name)
        except NotFound:
            return TestIamPermissionsResponse()
        return TestIamPermissionsResponse(permissions=[p for p in request.permissions if p in known])

    def _require(self, name: JobName | ModelName) -> None:
        look: Callable[[], object] = (
            (lambda: self._store.get_job(name)) if isinstance(name, JobName) else lambda: self._store.get_model(name)
        )
        look()


def _check(policy: Policy) -> None:
    for index, binding in enumerate(policy.bindings):
        if not binding.role.startswith(("roles/", "projects/", "organizations/")):
            raise InvalidArgument(
                f"{binding.role!r} is no role, such as roles/ml.modelUser.", field=f"policy.bindings[{index}].role"
            )
        for member in binding.members:
            if member not in ("allUsers", "allAuthenticatedUsers") and ":" not in member:
                raise InvalidArgument(
                    f"{member!r} is no member, such as user:ada@example.com.",
                    field=f"policy.bindings[{index}].members",
                )
