"""Every method of ml v1, called by google-api-python-client as it is in a shell that `mle env` wired.

Slow because a job trains and a version is served in a real runtime.
"""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googleapiclient
import pytest
from googleapiclient import discovery
from googleapiclient.errors import HttpError

from conformance.conftest import PARENT, training_job, wait_for_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def proves(method: str, state: str = "works") -> Any:
    return pytest.mark.proves(f"ml.{method}", state=state)


def refused(call: Any) -> dict[str, Any]:
    """The error that the API answers."""
    with pytest.raises(HttpError) as error:
        call.execute()
    answer: dict[str, Any] = json.loads(error.value.content)["error"]
    assert answer["code"] == error.value.resp.status
    return answer


@pytest.fixture
def jobs(ml: Any, trained_model: str) -> Any:
    return ml.projects().jobs()


@pytest.fixture
def models(ml: Any) -> Any:
    return ml.projects().models()


@pytest.fixture
def model(models: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """The full name of a model that is gone after the test."""
    name = request.node.name.partition("[")[0]
    yield models.create(parent=PARENT, body={"name": name, "regions": ["us-central1"]}).execute()["name"]
    versions = models.versions()
    made = versions.list(parent=f"{PARENT}/models/{name}").execute().get("versions", [])
    for version in sorted(made, key=lambda each: each.get("isDefault", False)):
        versions.delete(name=version["name"]).execute()
    models.delete(name=f"{PARENT}/models/{name}").execute()


def make_version(models: Any, model: str, trained_model: str, name: str = "v1", **fields: Any) -> Any:
    body = {"name": name, "deploymentUri": trained_model, "runtimeVersion": "scikit-learn-1.9", **fields}
    operation = models.versions().create(parent=model, body=body).execute()
    deadline = time.monotonic() + 120
    while not operation.get("done"):  # a busy machine may need longer than the call waits
        assert time.monotonic() < deadline
        time.sleep(0.5)
        operation = models.versions().create(parent=model, body=body).execute()
    return operation


# --- jobs ---


@proves("projects.jobs.create")
def test_create_job(jobs: Any) -> None:
    created = jobs.create(parent=PARENT, body=training_job("create_1")).execute()
    assert (created["jobId"], created["state"]) == ("create_1", "QUEUED")
    assert jobs.create(parent=PARENT, body=training_job("create_1")).execute()["jobId"] == "create_1"
    other = refused(jobs.create(parent=PARENT, body=training_job("create_1", args=["--other"])))
    assert (other["code"], other["status"]) == (409, "ALREADY_EXISTS")
    unknown = refused(jobs.create(parent=PARENT, body=training_job("create_2", bogusField=3)))
    assert unknown["status"] == "INVALID_ARGUMENT"
    (violation,) = unknown["details"][0]["fieldViolations"]
    assert violation["field"] == "training_input.bogus_field"
    assert wait_for_job(jobs, "create_1")["state"] == "SUCCEEDED"


@proves("projects.jobs.get")
def test_get_job(jobs: Any) -> None:
    job = jobs.get(name=f"{PARENT}/jobs/made_1").execute()
    assert job["state"] == "SUCCEEDED"
    assert job["createTime"] <= job["startTime"] <= job["endTime"]
    assert base64.b64encode(base64.b64decode(job["etag"], validate=True)).decode() == job["etag"]
    assert refused(jobs.get(name=f"{PARENT}/jobs/nobody"))["status"] == "NOT_FOUND"
    some = jobs.get(name=f"{PARENT}/jobs/made_1", fields="jobId,trainingInput(region,pythonModule)").execute()
    assert some == {
        "jobId": "made_1",
        "trainingInput": {"region": "us-central1", "pythonModule": "trainer.task"},
    }


@proves("projects.jobs.list")
def test_list_jobs(jobs: Any) -> None:
    for number in range(3):
        jobs.create(parent=PARENT, body=training_job(f"listed_{number}")).execute()
    first = jobs.list(parent=PARENT, pageSize=2, filter="jobId:listed*").execute()
    assert [job["jobId"] for job in first["jobs"]] == ["listed_2", "listed_1"]
    rest = jobs.list_next(jobs.list(parent=PARENT, pageSize=2, filter="jobId:listed*"), first).execute()
    assert [job["jobId"] for job in rest["jobs"]] == ["listed_0"]
    assert "nextPageToken" not in rest
    assert jobs.list(parent=PARENT, filter="jobId:listed* AND state:FAILED").execute() == {}
    assert refused(jobs.list(parent=PARENT, pageToken="?"))["status"] == "INVALID_ARGUMENT"
    for number in range(3):
        wait_for_job(jobs, f"listed_{number}")


@proves("projects.jobs.patch")
def test_patch_job(jobs: Any) -> None:
    name = f"{PARENT}/jobs/made_1"
    etag = jobs.get(name=name).execute()["etag"]
    body = {"labels": {"team": "a"}, "etag": etag}
    assert jobs.patch(name=name, updateMask="labels", body=body).execute()["labels"] == {"team": "a"}
    assert refused(jobs.patch(name=name, updateMask="labels", body=body))["status"] == "ABORTED"
    assert refused(jobs.patch(name=name, updateMask="state", body={}))["status"] == "INVALID_ARGUMENT"


@proves("projects.jobs.cancel")
def test_cancel_job(jobs: Any) -> None:
    jobs.create(parent=PARENT, body=training_job("cancelled_1")).execute()
    assert jobs.cancel(name=f"{PARENT}/jobs/cancelled_1", body={}).execute() == {}
    ended = wait_for_job(jobs, "cancelled_1")
    assert ended["state"] == "CANCELLED"
    assert ended["errorMessage"]
    assert jobs.cancel(name=f"{PARENT}/jobs/cancelled_1", body={}).execute() == {}


@pytest.mark.parametrize(
    "collection",
    [
        pytest.param("jobs", marks=[proves(f"projects.jobs.{verb}") for verb in ("getIamPolicy", "setIamPolicy")]),
        pytest.param(
            "models", marks=[proves(f"projects.models.{verb}") for verb in ("getIamPolicy", "setIamPolicy")]
        ),
    ],
)
def test_iam_policies(collection: str, ml: Any, trained_model: str, model: str) -> None:
    resources = getattr(ml.projects(), collection)()
    name = f"{PARENT}/jobs/made_1" if collection == "jobs" else model
    before = resources.getIamPolicy(resource=name).execute()
    bindings = [{"role": "roles/ml.viewer", "members": ["user:reader@example.com"]}]
    policy = {"bindings": bindings, "etag": before["etag"]}
    after = resources.setIamPolicy(resource=name, body={"policy": policy}).execute()
    assert after["bindings"] == bindings
    assert resources.getIamPolicy(resource=name).execute() == after
    stale = refused(resources.setIamPolicy(resource=name, body={"policy": policy}))
    assert stale["status"] == "ABORTED"
    again = {"policy": {"bindings": [], "etag": after["etag"]}}
    assert "bindings" not in resources.setIamPolicy(resource=name, body=again).execute()


@pytest.mark.parametrize(
    "collection",
    [
        pytest.param("jobs", marks=proves("projects.jobs.testIamPermissions")),
        pytest.param("models", marks=proves("projects.models.testIamPermissions")),
    ],
)
def test_iam_permissions(collection: str, ml: Any, trained_model: str, model: str) -> None:
    name = f"{PARENT}/jobs/made_1" if collection == "jobs" else model
    permissions = [f"ml.{collection}.get", f"ml.{collection}.no"]
    body = {"permissions": permissions}
    answer = getattr(ml.projects(), collection)().testIamPermissions(resource=name, body=body).execute()
    assert answer == {"permissions": permissions[:1]}


# --- models ---


@proves("projects.models.create")
@proves("projects.models.delete")
def test_create_and_delete_model(models: Any) -> None:
    body = {"name": "created", "description": "d", "labels": {"a": "b"}}
    created = models.create(parent=PARENT, body=body).execute()
    assert created["name"] == f"{PARENT}/models/created"
    assert created["regions"] == ["us-central1"]
    assert models.create(parent=PARENT, body=body).execute() == created
    assert refused(models.create(parent=PARENT, body={"name": "created"}))["status"] == "ALREADY_EXISTS"
    assert refused(models.create(parent=PARENT, body={"name": "1"}))["status"] == "INVALID_ARGUMENT"
    deleted = models.delete(name=created["name"]).execute()
    assert (deleted["done"], deleted["metadata"]["operationType"]) == (True, "DELETE_MODEL")
    assert refused(models.get(name=created["name"]))["status"] == "NOT_FOUND"


@proves("projects.models.get")
@proves("projects.models.list")
def test_get_and_list_models(models: Any, model: str) -> None:
    assert models.get(name=model).execute()["name"] == model
    models.create(parent=PARENT, body={"name": "zz_last", "labels": {"kind": "x"}}).execute()
    listed = models.list(parent=PARENT, pageSize=1).execute()
    assert [each["name"] for each in listed["models"]] == [model]
    rest = models.list(parent=PARENT, pageToken=listed["nextPageToken"]).execute()
    assert [each["name"] for each in rest["models"]] == [f"{PARENT}/models/zz_last"]
    found = models.list(parent=PARENT, filter="labels.kind:x").execute()
    assert [each["name"] for each in found["models"]] == [f"{PARENT}/models/zz_last"]
    models.delete(name=f"{PARENT}/models/zz_last").execute()


@proves("projects.models.patch")
def test_patch_model(models: Any, model: str) -> None:
    operation = models.patch(name=model, updateMask="description", body={"description": "new"}).execute()
    assert operation["done"]
    assert operation["response"]["@type"] == "type.googleapis.com/google.cloud.ml.v1.Model"
    assert models.get(name=model).execute()["description"] == "new"
    assert refused(models.patch(name=model, updateMask="name", body={}))["status"] == "INVALID_ARGUMENT"


# --- versions, operations and predictions ---


@proves("projects.models.versions.create")
@proves("projects.models.versions.get")
@proves("projects.operations.get")
@proves("projects.predict")
def test_create_version_and_predict(ml: Any, models: Any, model: str, trained_model: str) -> None:
    operation = make_version(models, model, trained_model)
    assert operation["done"], "a small model is served at once"
    assert ml.projects().operations().get(name=operation["name"]).execute() == operation
    version = models.versions().get(name=f"{model}/versions/v1").execute()
    assert (version["state"], version["isDefault"], version["framework"]) == ("READY", True, "SCIKIT_LEARN")
    body = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}
    for name in (model, f"{model}/versions/v1"):
        assert ml.projects().predict(name=name, body=body).execute() == {"predictions": [0, 2]}
    wrong = ml.projects().predict(name=model, body={"instances": [[1.0]]}).execute()
    assert "expecting 4 features" in wrong["error"]
    assert refused(ml.projects().predict(name=f"{model}/versions/v9", body=body))["status"] == "NOT_FOUND"


@proves("projects.models.versions.list")
@proves("projects.models.versions.setDefault")
@proves("projects.models.versions.patch")
@proves("projects.models.versions.delete")
def test_versions_of_a_model(models: Any, model: str, trained_model: str) -> None:
    versions = models.versions()
    for name in ("v1", "v2"):
        make_version(models, model, trained_model, name)
    listed = versions.list(parent=model, pageSize=1).execute()
    assert [each["name"] for each in listed["versions"]] == [f"{model}/versions/v1"]
    rest = versions.list(parent=model, pageToken=listed["nextPageToken"], filter="state:READY").execute()
    assert [each["name"] for each in rest["versions"]] == [f"{model}/versions/v2"]
    assert versions.setDefault(name=f"{model}/versions/v2", body={}).execute()["isDefault"]
    assert models.get(name=model).execute()["defaultVersion"]["name"] == f"{model}/versions/v2"
    body = {"description": "d", "autoScaling": {"minNodes": 1}}
    mask = "description,autoScaling.minNodes"
    patched = versions.patch(name=f"{model}/versions/v1", updateMask=mask, body=body).execute()
    assert patched["response"]["autoScaling"] == {"minNodes": 1}
    deleted = versions.delete(name=f"{model}/versions/v1").execute()
    assert deleted["metadata"]["operationType"] == "DELETE_VERSION"
    assert refused(versions.get(name=f"{model}/versions/v1"))["status"] == "NOT_FOUND"


@proves("projects.operations.list")
@proves("projects.operations.cancel")
def test_list_and_cancel_operations(ml: Any, models: Any, model: str) -> None:
    operations = ml.projects().operations()
    made = models.patch(name=model, updateMask="description", body={"description": "x"}).execute()
    listed = operations.list(name=PARENT, pageSize=1).execute()
    assert listed["operations"] == [made], "newest first"
    assert operations.list(name=PARENT, pageToken=listed["nextPageToken"]).execute()["operations"]
    assert operations.cancel(name=made["name"]).execute() == {}
    assert operations.get(name=made["name"]).execute()["done"]
    assert refused(operations.get(name=f"{PARENT}/operations/nothing"))["status"] == "NOT_FOUND"


@proves("projects.explain")
def test_explain(ml: Any, models: Any, model: str, trained_model: str) -> None:
    config = {"sampledShapleyAttribution": {"numPaths": 24}}
    make_version(models, model, trained_model, explanationConfig=config)
    assert models.versions().get(name=f"{model}/versions/v1").execute()["explanationConfig"] == config
    body = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}
    for name in (model, f"{model}/versions/v1"):
        answer = ml.projects().explain(name=name, body=body).execute()
        entries = [each["attributions_by_label"][0] for each in answer["explanations"]]
        assert [entry["label_index"] for entry in entries] == [0, 2]
        for entry in entries:
            added = sum(entry["attributions"]["instances"])
            assert added == pytest.approx(entry["example_score"] - entry["baseline_score"])
            assert (entry["output_name"], entry["approx_error"]) == ("probabilities", 0)
    make_version(models, model, trained_model, "v2")
    answer = refused(ml.projects().explain(name=f"{model}/versions/v2", body=body))
    assert answer["status"] == "FAILED_PRECONDITION"
    assert "no explanation config" in answer["message"]
    for config, field in (
        ({}, ""),
        ({"integratedGradientsAttribution": {}}, ".integrated_gradients_attribution"),
        ({"sampledShapleyAttribution": {"numPaths": -1}}, ".sampled_shapley_attribution.num_paths"),
    ):
        with pytest.raises(HttpError) as error:
            make_version(models, model, trained_model, "v3", explanationConfig=config)
        violation = json.loads(error.value.content)["error"]["details"][0]["fieldViolations"][0]
        assert violation["field"] == f"version.explanation_config{field}"


# --- the service itself ---


@proves("projects.getConfig")
def test_get_config(ml: Any) -> None:
    config = ml.projects().getConfig(name=PARENT).execute()
    number = config["serviceAccountProject"]
    assert config["serviceAccount"] == f"service-{number}@cloud-ml.google.com.iam.gserviceaccount.com"


@proves("projects.locations.list")
@proves("projects.locations.get")
def test_locations(ml: Any) -> None:
    locations = ml.projects().locations()
    listed = locations.list(parent=PARENT, pageSize=10).execute()
    assert len(listed["locations"]) == 10
    rest = locations.list(parent=PARENT, pageToken=listed["nextPageToken"]).execute()["locations"]
    one = f"{PARENT}/locations/us-central1"
    assert locations.get(name=one).execute() in listed["locations"] + rest
    assert refused(locations.get(name=f"{PARENT}/locations/mars"))["status"] == "NOT_FOUND"


# --- studies ---

LOCATION = f"{PARENT}/locations/us-central1"
STUDY_CONFIG = {
    "algorithm": "ALGORITHM_UNSPECIFIED",
    "metrics": [{"metric": "accuracy", "goal": "MAXIMIZE"}, {"metric": "latency", "goal": "MINIMIZE"}],
    "parameters": [
        {
            "parameter": "learning_rate",
            "type": "DOUBLE",
            "doubleValueSpec": {"minValue": 1e-4, "maxValue": 0.1},
            "scaleType": "UNIT_LOG_SCALE",
        },
        {
            "parameter": "model",
            "type": "CATEGORICAL",
            "categoricalValueSpec": {"values": ["linear", "deep"]},
            "childParameterSpecs": [
                {
                    "parameter": "layers",
                    "type": "INTEGER",
                    "integerValueSpec": {"minValue": "1", "maxValue": "8"},
                    "parentCategoricalValues": {"values": ["deep"]},
                }
            ],
        },
    ],
    "automatedStoppingConfig": {"medianAutomatedStoppingConfig": {"useElapsedTime": False}},
}


def proves_study(method: str) -> Any:
    return proves(f"projects.locations.studies.{method}")


@pytest.fixture
def studies(ml: Any) -> Any:
    return ml.projects().locations().studies()


@pytest.fixture
def study(studies: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """The full name of a study that is gone after the test."""
    body = {"studyConfig": STUDY_CONFIG}
    name = studies.create(parent=LOCATION, studyId=request.node.name, body=body).execute()["name"]
    yield name
    studies.delete(name=name).execute()


def suggest(ml: Any, study: str, client: str, count: int = 1) -> list[dict[str, Any]]:
    """Ask, and wait for the operation as programs do."""
    locations = ml.projects().locations()
    body = {"suggestionCount": count, "clientId": client}
    operation = locations.studies().trials().suggest(parent=study, body=body).execute()
    while not operation.get("done"):
        operation = locations.operations().get(name=operation["name"]).execute()
    assert operation["metadata"]["clientId"] == client
    trials: list[dict[str, Any]] = operation["response"]["trials"]
    return trials


def measured(accuracy: float, latency: float, step: int) -> dict[str, Any]:
    metrics = [{"metric": "accuracy", "value": accuracy}, {"metric": "latency", "value": latency}]
    return {"stepCount": str(step), "elapsedTime": f"{step}.5s", "metrics": metrics}


@proves_study("create")
@proves_study("get")
@proves_study("list")
@proves_study("delete")
def test_studies(studies: Any) -> None:
    body = {"studyConfig": STUDY_CONFIG}
    created = studies.create(parent=LOCATION, studyId="iris-1", body=body).execute()
    assert created["name"] == f"{LOCATION}/studies/iris-1"
    assert (created["state"], created["studyConfig"]["metrics"]) == ("ACTIVE", STUDY_CONFIG["metrics"])
    assert studies.get(name=created["name"]).execute() == created
    assert created in studies.list(parent=LOCATION).execute()["studies"]
    other = {"studyConfig": {**STUDY_CONFIG, "algorithm": "RANDOM_SEARCH"}}
    assert refused(studies.create(parent=LOCATION, studyId="iris-1", body=other))["code"] == 409
    wrong = refused(studies.create(parent=LOCATION, studyId="iris-2", body={"studyConfig": {"metrics": []}}))
    fields = [violation["field"] for violation in wrong["details"][0]["fieldViolations"]]
    assert fields == ["study.study_config.metrics", "study.study_config.parameters"]
    assert studies.delete(name=created["name"]).execute() == {}
    assert refused(studies.get(name=created["name"]))["status"] == "NOT_FOUND"


@proves_study("trials.suggest")
@proves_study("trials.get")
@proves_study("trials.list")
@proves_study("trials.delete")
@proves("projects.locations.operations.get")
def test_trials(ml: Any, study: str) -> None:
    trials = ml.projects().locations().studies().trials()
    (first,) = suggest(ml, study, "one")
    assert (first["name"], first["state"], first["clientId"]) == (f"{study}/trials/1", "ACTIVE", "one")
    values = {parameter["parameter"]: parameter for parameter in first["parameters"]}
    assert 1e-4 <= values["learning_rate"]["floatValue"] <= 0.1
    assert ("layers" in values) == (values["model"]["stringValue"] == "deep")
    assert suggest(ml, study, "one") == [first] == [trials.get(name=first["name"]).execute()]
    others = suggest(ml, study, "two", 2)
    assert trials.list(parent=study).execute()["trials"] == [first, *others]
    assert trials.delete(name=first["name"]).execute() == {}
    assert trials.list(parent=study).execute()["trials"] == others


@proves_study("trials.addMeasurement")
@proves_study("trials.complete")
@proves_study("trials.create")
@proves_study("trials.listOptimalTrials")
def test_ends_of_trials(ml: Any, study: str) -> None:
    trials = ml.projects().locations().studies().trials()
    given = suggest(ml, study, "one", 3)
    for step in (2, 1):
        body = {"measurement": measured(step / 4, 9, step)}
        trial = trials.addMeasurement(name=given[0]["name"], body=body).execute()
    assert [each["stepCount"] for each in trial["measurements"]] == ["1", "2"]
    assert trials.complete(name=given[0]["name"], body={}).execute()["finalMeasurement"] == measured(0.5, 9, 2)
    final = {"finalMeasurement": measured(0.25, 1, 9)}
    assert trials.complete(name=given[1]["name"], body=final).execute()["state"] == "COMPLETED"
    infeasible = {"trialInfeasible": True, "infeasibleReason": "out of memory"}
    ended = trials.complete(name=given[2]["name"], body=infeasible).execute()
    assert (ended["trialInfeasible"], ended["infeasibleReason"]) == (True, "out of memory")
    worse = {"parameters": given[0]["parameters"], "finalMeasurement": measured(0.125, 5, 1)}
    assert trials.create(parent=study, body=worse).execute()["state"] == "COMPLETED"
    optimal = trials.listOptimalTrials(parent=study, body={}).execute()["trials"]
    assert [trial["name"] for trial in optimal] == [given[0]["name"], given[1]["name"]]


@proves_study("trials.checkEarlyStoppingState")
@proves_study("trials.stop")
def test_stopping_trials(ml: Any, study: str) -> None:
    trials = ml.projects().locations().studies().trials()
    given = suggest(ml, study, "one", 6)
    for trial, accuracy in zip(given, (0.7, 0.8, 0.8, 0.9, 0.1, 0.9), strict=True):
        for step in (1, 2, 3):
            body = {"measurement": measured(accuracy * step / 3, 1, step)}
            trials.addMeasurement(name=trial["name"], body=body).execute()
    for trial in given[:4]:
        trials.complete(name=trial["name"], body={}).execute()

    def judged(trial: dict[str, Any]) -> bool:
        operation = trials.checkEarlyStoppingState(name=trial["name"], body={}).execute()
        assert operation["done"]
        return bool(operation["response"].get("shouldStop"))

    assert (judged(given[4]), judged(given[5])) == (True, False)
    assert trials.get(name=given[4]["name"]).execute()["state"] == "STOPPING"
    assert trials.stop(name=given[5]["name"], body={}).execute()["state"] == "STOPPING"
    assert judged(given[5])


@proves("projects.locations.operations.cancel")
def test_operations_of_locations(ml: Any, study: str) -> None:
    operations = ml.projects().locations().operations()
    body = {"suggestionCount": 1, "clientId": "one"}
    made = ml.projects().locations().studies().trials().suggest(parent=study, body=body).execute()
    assert operations.get(name=made["name"]).execute() == made
    assert operations.cancel(name=made["name"]).execute() == {}
    for call in (operations.get(name=f"{LOCATION}/operations/1"), operations.cancel(name=f"{LOCATION}/operations/1")):
        assert refused(call)["status"] == "NOT_FOUND"


# --- all of them ---


def test_the_parameters_that_every_method_takes(ml: Any) -> None:
    given = {"alt": "json", "key": "k", "quotaUser": "q", "prettyPrint": False, "x__xgafv": "2"}
    answered = ml.projects().getConfig(name=PARENT, fields="config", **given).execute()
    assert list(answered) == ["config"]
    bad = refused(ml.projects().getConfig(name=PARENT, fields="config("))
    assert (bad["status"], bad["details"][0]["fieldViolations"][0]["field"]) == ("INVALID_ARGUMENT", "fields")


FETCHING = """\
import sys
from googleapiclient import discovery
ml = discovery.build("ml", "v1", static_discovery=False, discoveryServiceUrl=sys.argv[1], cache_discovery=False)
print(ml.projects().getConfig(name=sys.argv[2]).execute()["serviceAccount"])
"""


@pytest.mark.parametrize("url", [discovery.V1_DISCOVERY_URI, discovery.V2_DISCOVERY_URI])
def test_a_program_that_fetches_the_document(url: str, wired: dict[str, str]) -> None:
    command = [sys.executable, "-c", FETCHING, url, PARENT]
    done = subprocess.run(command, env=wired, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("@cloud-ml.google.com.iam.gserviceaccount.com\n")


def test_no_method_is_left_out(request: pytest.FixtureRequest) -> None:
    document = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents" / "ml.v1.json"

    def methods(resource: dict[str, Any]) -> Iterator[str]:
        yield from (method["id"] for method in resource.get("methods", {}).values())
        for inner in resource.get("resources", {}).values():
            yield from methods(inner)

    proven = {
        marker.args[0]
        for item in request.session.items
        if item.path == Path(__file__)
        for marker in item.iter_markers("proves")
    }
    if any(item.path == Path(__file__) and "test_get_job" in item.name for item in request.session.items):
        assert proven == set(methods(json.loads(document.read_text())))
