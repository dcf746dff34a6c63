"""Policies of jobs and models."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import Aborted, InvalidArgument, NotFound
from enginehouse.core.names import JobName, ModelName
from enginehouse.iam.service import PolicyService
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.schemas.iam import Binding, Policy, SetIamPolicyRequest, TestIamPermissionsRequest
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.metadata import make_job, make_model

MODEL, JOB = ModelName("demo", "iris"), JobName("demo", "job_1")
USER = Binding(role="roles/ml.modelUser", members=["user:ada@example.com"])


@pytest.fixture
def policies(tmp_path: Path) -> Iterator[PolicyService]:
    store = SqlMetadataStore.open_sqlite(tmp_path / "m.sqlite3", FakeClock())
    store.create_model(make_model())
    store.create_job(make_job(), [])
    yield PolicyService(store)
    store.close()


@pytest.mark.parametrize("name", [MODEL, JOB])
def test_a_policy_is_kept_under_its_etag(policies: PolicyService, name: JobName | ModelName) -> None:
    empty = policies.get(name)
    assert empty.bindings == []
    kept = policies.set(name, SetIamPolicyRequest(policy=Policy(bindings=[USER], etag=empty.etag)))
    assert policies.get(name) == kept
    assert kept.bindings == [USER]
    assert kept.etag != empty.etag
    with pytest.raises(Aborted, match="etag"):
        policies.set(name, SetIamPolicyRequest(policy=Policy(etag=empty.etag)))
    assert policies.get(name) == kept


def test_only_what_the_mask_names_is_changed(policies: PolicyService) -> None:
    policies.set(MODEL, SetIamPolicyRequest(policy=Policy(bindings=[USER], version=1)))
    changed = policies.set(MODEL, SetIamPolicyRequest(policy=Policy(version=3), update_mask="version,etag"))
    assert (changed.version, changed.bindings) == (3, [USER])
    with pytest.raises(InvalidArgument) as error:
        policies.set(MODEL, SetIamPolicyRequest(policy=Policy(), update_mask="owner"))
    assert error.value.field == "update_mask"


@pytest.mark.parametrize(
    ("binding", "field"),
    [
        (Binding(role="owner", members=[]), "policy.bindings[0].role"),
        (Binding(role="roles/ml.admin", members=["ada"]), "policy.bindings[0].members"),
    ],
)
def test_bad_bindings_are_refused(policies: PolicyService, binding: Binding, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        policies.set(MODEL, SetIamPolicyRequest(policy=Policy(bindings=[binding])))
    assert error.value.field == field


def test_permissions_are_those_of_the_resource(policies: PolicyService) -> None:
    asked = TestIamPermissionsRequest(permissions=["ml.models.predict", "ml.jobs.cancel", "ml.versions.get"])
    assert policies.test(MODEL, asked).permissions == ["ml.models.predict", "ml.versions.get"]
    assert policies.test(JOB, asked).permissions == ["ml.jobs.cancel"]
    assert policies.test(ModelName("demo", "nothing"), asked).permissions == []
    with pytest.raises(InvalidArgument):
        policies.test(MODEL, TestIamPermissionsRequest(permissions=["ml.*"]))
    with pytest.raises(NotFound):
        policies.get(ModelName("demo", "nothing"))
