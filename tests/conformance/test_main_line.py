"""The whole line with Google's own clients, unmodified: google-cloud-storage and google-api-python-client.

Slow because it trains and serves in a real runtime.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from googleapiclient import discovery
from googleapiclient.errors import HttpError

from enginehouse.testing.engine import EngineProcess, make_sdist

PARENT = "projects/demo-project"
MODEL = """\
import argparse, logging
import joblib
from google.cloud import storage
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--trees", type=int)
parser.add_argument("--job-dir")
options = parser.parse_args()
iris = load_iris()
model = RandomForestClassifier(options.trees, random_state=0).fit(iris.data, iris.target)
logging.warning("accuracy %.3f", model.score(iris.data, iris.target))
joblib.dump(model, "model.joblib")
bucket, _, folder = options.job_dir[len("gs://"):].partition("/")
storage.Client().bucket(bucket).blob(folder + "/model.joblib").upload_from_filename("model.joblib")
print("uploaded")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data") as engine:
        yield engine


@pytest.fixture(scope="module")
def ml(engine: EngineProcess) -> Any:
    return discovery.build(
        "ml", "v1", credentials=AnonymousCredentials(), client_options={"api_endpoint": engine.url}
    )


@pytest.fixture(scope="module")
def bucket(engine: EngineProcess) -> Any:
    client = storage.Client(
        project="demo-project", credentials=AnonymousCredentials(), client_options={"api_endpoint": engine.url}
    )
    bucket = client.create_bucket("iris-dataset")
    bucket.blob("packages/trainer-0.1.tar.gz").upload_from_string(make_sdist({"trainer/task.py": MODEL}))
    return bucket


def submit(ml: Any, job_id: str, **training_input: Any) -> Any:
    body = {
        "jobId": job_id,
        "labels": {"made-by": "test"},
        "trainingInput": {
            "region": "us-central1",
            "runtimeVersion": "scikit-learn-1.9",
            "pythonModule": "trainer.task",
            "packageUris": ["gs://iris-dataset/packages/trainer-0.1.tar.gz"],
            "args": ["--trees", "10"],
            "jobDir": f"gs://iris-dataset/jobs/{job_id}",
            **training_input,
        },
    }
    return ml.projects().jobs().create(parent=PARENT, body=body).execute()


def wait_for_job(ml: Any, job_id: str) -> Any:
    deadline = time.monotonic() + 300
    while True:
        job = ml.projects().jobs().get(name=f"{PARENT}/jobs/{job_id}").execute()
        if "endTime" in job:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


def wait_for_operation(ml: Any, operation: Any) -> Any:
    deadline = time.monotonic() + 120
    while not operation.get("done"):
        assert time.monotonic() < deadline, operation
        time.sleep(0.1)
        operation = ml.projects().operations().get(name=operation["name"]).execute()
    return operation


@pytest.fixture(scope="module")
def trained(ml: Any, bucket: Any) -> Any:
    created = submit(ml, "iris_1")
    assert created["state"] == "QUEUED"
    assert created["createTime"].endswith("Z")
    return wait_for_job(ml, "iris_1")


def test_training(trained: Any, bucket: Any, ml: Any) -> None:
    assert trained["state"] == "SUCCEEDED", trained.get("errorMessage")
    assert trained["createTime"] <= trained["startTime"] <= trained["endTime"]
    assert trained["trainingInput"]["args"] == ["--trees", "10"]
    assert trained["labels"] == {"made-by": "test"}
    assert isinstance(trained["trainingOutput"].get("consumedMLUnits", 0.0), float)
    assert bucket.blob("jobs/iris_1/model.joblib").exists()
    listed = ml.projects().jobs().list(parent=PARENT).execute()
    assert listed["jobs"][-1] == trained


def test_a_job_is_patched_and_cancelled(ml: Any, trained: Any) -> None:
    name = f"{PARENT}/jobs/iris_1"
    patched = ml.projects().jobs().patch(name=name, updateMask="labels", body={"labels": {"a": "b"}}).execute()
    assert patched["labels"] == {"a": "b"}
    assert ml.projects().jobs().cancel(name=name, body={}).execute() == {}
    assert ml.projects().jobs().get(name=name).execute()["state"] == "SUCCEEDED"


def test_a_second_job_of_that_id_conflicts(ml: Any, trained: Any) -> None:
    with pytest.raises(HttpError) as error:
        submit(ml, "iris_1")
    assert error.value.status_code == 409


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pythonModule": "trainer.tsk"}, "training_input.python_module"),
        ({"runtimeVersion": "0.9"}, "training_input.runtime_version"),
        ({"packageUris": ["gs://iris-dataset/nothing.tar.gz"]}, "training_input.package_uris"),
        ({"jobDir": "gs://no-such-bucket/x"}, "training_input.job_dir"),
        ({"bogusField": 1}, "training_input.bogus_field"),
    ],
)
def test_a_wrong_job_is_refused_with_the_field(ml: Any, bucket: Any, change: dict[str, Any], field: str) -> None:
    with pytest.raises(HttpError) as error:
        submit(ml, "wrong_1", **change)
    assert error.value.status_code == 400
    violations = error.value.error_details[0]["fieldViolations"]
    assert [violation["field"] for violation in violations] == [field]
    with pytest.raises(HttpError) as missing:
        ml.projects().jobs().get(name=f"{PARENT}/jobs/wrong_1").execute()
    assert missing.value.status_code == 404


def test_an_import_error_is_the_jobs_error_message(ml: Any, bucket: Any) -> None:
    bucket.blob("packages/broken-0.1.tar.gz").upload_from_string(
        make_sdist({"broken/task.py": "import no_such_thing\n"}, name="broken")
    )
    submit(ml, "broken_1", packageUris=["gs://iris-dataset/packages/broken-0.1.tar.gz"], pythonModule="broken.task")
    job = wait_for_job(ml, "broken_1")
    assert job["state"] == "FAILED"
    assert "The replica master 0 exited with a non-zero status of 1." in job["errorMessage"]
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in job["errorMessage"]


@pytest.fixture(scope="module")
def deployed(ml: Any, trained: Any) -> Any:
    model = ml.projects().models().create(parent=PARENT, body={"name": "iris", "regions": ["us-central1"]}).execute()
    assert model["name"] == f"{PARENT}/models/iris"
    body = {
        "name": "v1",
        "deploymentUri": "gs://iris-dataset/jobs/iris_1",
        "runtimeVersion": "scikit-learn-1.9",
        "framework": "SCIKIT_LEARN",
    }
    operation = ml.projects().models().versions().create(parent=model["name"], body=body).execute()
    assert operation["metadata"]["operationType"] == "CREATE_VERSION"
    return wait_for_operation(ml, operation)


def test_deploying(ml: Any, deployed: Any) -> None:
    assert "error" not in deployed, deployed
    assert deployed["response"]["@type"] == "type.googleapis.com/google.cloud.ml.v1.Version"
    version = ml.projects().models().versions().get(name=f"{PARENT}/models/iris/versions/v1").execute()
    assert (version["state"], version["isDefault"], version["framework"]) == ("READY", True, "SCIKIT_LEARN")
    assert ml.projects().models().get(name=f"{PARENT}/models/iris").execute()["defaultVersion"] == version
    listed = ml.projects().models().list(parent=PARENT).execute()["models"]
    assert [model["name"] for model in listed] == [f"{PARENT}/models/iris"]
    operations = ml.projects().operations().list(name=PARENT).execute()["operations"]
    assert deployed in operations


@pytest.mark.parametrize("name", [f"{PARENT}/models/iris", f"{PARENT}/models/iris/versions/v1"])
def test_online_prediction(ml: Any, deployed: Any, name: str) -> None:
    body = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
    assert ml.projects().predict(name=name, body=body).execute() == {"predictions": [0, 2]}


def test_predicting_with_what_is_not_there(ml: Any, deployed: Any) -> None:
    for name in (f"{PARENT}/models/nothing", f"{PARENT}/models/iris/versions/v9"):
        with pytest.raises(HttpError) as error:
            ml.projects().predict(name=name, body={"instances": [[1, 2, 3, 4]]}).execute()
        assert error.value.status_code == 404


def test_a_bad_model_fails_with_the_frameworks_words(ml: Any, bucket: Any, deployed: Any) -> None:
    bucket.blob("bad/model.joblib").upload_from_string(b"this is no joblib file")
    body = {"name": "bad", "deploymentUri": "gs://iris-dataset/bad", "runtimeVersion": "scikit-learn-1.9"}
    operation = ml.projects().models().versions().create(parent=f"{PARENT}/models/iris", body=body).execute()
    ended = wait_for_operation(ml, operation)
    assert ended["error"]["message"].startswith(
        'Create Version failed. Bad model detected with error:  "Failed to load'
    )
    version = ml.projects().models().versions().get(name=f"{PARENT}/models/iris/versions/bad").execute()
    assert version["state"] == "FAILED"
    assert version["errorMessage"] == ended["error"]["message"]
    deleted = ml.projects().models().versions().delete(name=version["name"]).execute()
    assert deleted["done"]


def test_a_directory_without_a_model_is_refused_at_once(ml: Any, bucket: Any, deployed: Any) -> None:
    body = {"name": "empty", "deploymentUri": "gs://iris-dataset/packages", "runtimeVersion": "scikit-learn-1.9"}
    with pytest.raises(HttpError) as error:
        ml.projects().models().versions().create(parent=f"{PARENT}/models/iris", body=body).execute()
    assert error.value.error_details[0]["fieldViolations"][0]["field"] == "version.deployment_uri"


def test_set_default_patch_and_delete(ml: Any, bucket: Any, deployed: Any) -> None:
    model, v1, v2 = (f"{PARENT}/models/iris{suffix}" for suffix in ("", "/versions/v1", "/versions/v2"))
    body = {"name": "v2", "deploymentUri": "gs://iris-dataset/jobs/iris_1", "runtimeVersion": "scikit-learn-1.9"}
    wait_for_operation(ml, ml.projects().models().versions().create(parent=model, body=body).execute())
    versions = ml.projects().models().versions()
    assert versions.setDefault(name=v2, body={}).execute()["isDefault"]
    assert ml.projects().models().get(name=model).execute()["defaultVersion"]["name"] == v2
    with pytest.raises(HttpError, match="default"):
        versions.delete(name=v2).execute()
    patched = versions.patch(name=v2, updateMask="description", body={"description": "second"}).execute()
    assert patched["response"]["description"] == "second"
    with pytest.raises(HttpError, match="version"):
        ml.projects().models().delete(name=model).execute()
    assert versions.setDefault(name=v1, body={}).execute()["isDefault"]
    assert versions.delete(name=v2).execute()["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    listed = versions.list(parent=model).execute()["versions"]
    assert [version["name"] for version in listed] == [v1]
