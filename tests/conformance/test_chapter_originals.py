"""The chapter's training scripts as they were: TensorFlow 1.x code on the runtimes of its time.

Slow because it builds old runtimes and trains on clusters of eight processes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.chapter import Reader, environ_with_sdk, environ_without_sdk
from conformance.conftest import write
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.sdk.client import connect
from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 400
GPU_CONFIG = """\
trainingInput:
  scaleTier: CUSTOM
  masterType: complex_model_m_gpu
  workerType: complex_model_m_gpu
  parameterServerType: large_model
  workerCount: 2
  parameterServerCount: 3
"""
PREPARE = """\
gsutil mb gs://iris-dataset
gsutil cp train_data.csv test_data.csv hold_out_test.csv gs://iris-dataset
"""
CLUSTER = ["master-replica-0", *(f"worker-replica-{n}" for n in range(4)), *(f"ps-replica-{n}" for n in range(3))]


SKLEARN_MODEL = """\
import datetime, os, subprocess

import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.externals import joblib
from tensorflow.python.lib.io import file_io

BUCKET = "gs://iris-sklearn"


def read(name):
    with file_io.FileIO(BUCKET + "/" + name, "r") as file:
        return pd.read_csv(file)


forest = RandomForestClassifier(n_estimators=20, random_state=1)
forest.fit(read("X_train.csv"), read("y_train.csv").values.ravel())
joblib.dump(forest, "model.joblib")
folder = datetime.datetime.now().strftime("iris_%Y%m%d_%H%M%S")
subprocess.check_call(["gsutil", "cp", "model.joblib", BUCKET + "/" + folder + "/model.joblib"])
print("saved as %s/%s with scikit-learn on %s" % (BUCKET, folder, os.sys.version.split()[0]))
"""
SKLEARN_SCRIPT = """\
export JOB_NAME=iris_`date '+%Y%m%d_%H%M%S'`
gcloud ml-engine jobs submit training $JOB_NAME \\
  --stream-logs \\
  --scale-tier BASIC \\
  --runtime-version 1.8 \\
  --job-dir gs://iris-sklearn/jobs/$JOB_NAME \\
  --module-name trainer.model \\
  --package-path trainer/ \\
  --region us-central1 \\
  --python-version 3.5
"""

SKLEARN_CONFIG = """\
deploymentUri: "{folder}"
runtimeVersion: '1.8'
framework: "SCIKIT_LEARN"
pythonVersion: "3.5"
"""
SKLEARN_PREDICT = """\
gsutil cp test-sample.json gs://iris-sklearn
gcloud ml-engine models create iris_sklearn --regions=us-central1
gcloud ml-engine versions create v1 --model iris_sklearn --config config.yaml
gsutil cp gs://iris-sklearn/test-sample.json .
gcloud ml-engine predict --model iris_sklearn --version v1 --json-instances ./test-sample.json
"""


@pytest.fixture(params=["fresh", pytest.param("warm", marks=pytest.mark.long)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineProcess]:
    """`warm`: replicas are forked from interpreters that wait, where some do."""
    warm_pool = "2" if request.param == "warm" else "0"
    variables = {"ENGINEHOUSE_ALLOW_MISSING_ACCELERATORS": "*", "ENGINEHOUSE_WARM_POOL": warm_pool}
    with EngineProcess(tmp_path / "data", variables) as engine:
        yield engine


@pytest.mark.parametrize(
    ("runtime", "python", "sdk"),
    [("1.8", "2.7", True), pytest.param("1.15", "3.7", False, marks=pytest.mark.long)],
)
def test_training_as_it_was(engine: EngineProcess, tmp_path: Path, runtime: str, python: str, sdk: bool) -> None:
    needs_python(python)
    project = tmp_path / "IrisCloudML"
    reader = Reader(project, engine, environ_with_sdk() if sdk else environ_without_sdk(tmp_path))
    reader.init("tensorflow1")
    flags = f"--runtime-version {runtime} --python-version {python}" if python != "2.7" else "--runtime-version 1.8"
    for script in (project / "scripts").glob("*-training.sh"):
        text = script.read_text().replace("--runtime-version 1.8", flags)
        script.write_text(text.replace("--train-steps 5000", f"--train-steps {STEPS}"))
    gpu = (project / "scripts" / "distributed-training.sh").read_text()
    write(
        project / "scripts" / "gpu-training.sh",
        gpu.replace("SCALE_TIER=STANDARD_1", "SCALE_TIER=CUSTOM").replace(
            "--scale-tier", "--config gpu_config.yaml --scale-tier"
        ),
    )
    write(project / "gpu_config.yaml", GPU_CONFIG)
    write(project / "scripts" / "prepare.sh", PREPARE)
    reader.source("prepare.sh")

    printed = reader.source("single-instance-training.sh", timeout_s=900)  # builds the runtime where it is not
    assert f"Using runtime {runtime} with Python {python}" in printed
    check_training(reader, printed, ["master-replica-0"])
    check_predictions(reader, runtime, flags)
    printed = reader.source("distributed-training.sh", timeout_s=900)
    check_training(reader, printed, CLUSTER)
    assert "its 8 replicas share the" in printed
    printed = reader.source("gpu-training.sh", timeout_s=900)
    check_training(
        reader, printed, [name for name in CLUSTER if name not in ("worker-replica-2", "worker-replica-3")]
    )
    assert "which this machine does not have; it runs on CPUs" in printed
    pool = connect(url=engine.url).engine.status()["warmPool"]
    assert not pool or sum(each["replicas"] for each in pool) >= 6  # those of the last job


def test_scikit_learn_as_it_was(engine: EngineProcess, tmp_path: Path) -> None:
    needs_python("3.6")
    project = tmp_path / "Iris_SklearnCloudML"
    reader = Reader(project, engine, environ_with_sdk())
    reader.init("sklearn")
    write(project / "trainer" / "model.py", SKLEARN_MODEL)
    write(project / "scripts" / "train.sh", SKLEARN_SCRIPT)
    lines = [line.rsplit(",", 1) for line in (project / "train_data.csv").read_text().splitlines()]
    numbers = {"setosa": "0", "versicolor": "1", "virginica": "2"}
    write(project / "X_train.csv", "".join(f"{features}\n" for features, _ in lines))
    write(project / "y_train.csv", "".join(f"{numbers.get(label, label)}\n" for _, label in lines))
    write(
        project / "scripts" / "prepare.sh",
        "gsutil mb gs://iris-sklearn\ngsutil cp X_train.csv y_train.csv gs://iris-sklearn\n",
    )
    reader.source("prepare.sh")
    printed = reader.source("train.sh", timeout_s=900)
    assert "state: SUCCEEDED" in printed
    assert "Using runtime 1.8 with Python 3.6" in printed and "3.5" in printed
    client = connect(url=engine.url)
    listed = client.storage.list("iris-sklearn", "iris_")
    (model,) = [each for each in listed if each.uri.name.endswith("/model.joblib")]
    assert model.size_bytes > 1000

    folder = str(model.uri).removesuffix("/model.joblib")
    write(project / "config.yaml", SKLEARN_CONFIG.format(folder=folder))
    write(project / "test-sample.json", "[5.1, 3.5, 1.4, 0.2]\n")
    write(project / "scripts" / "predict.sh", SKLEARN_PREDICT)
    printed = reader.source("predict.sh")
    assert "[0]" in printed.splitlines()
    version = client.versions("iris_sklearn").get("v1")
    assert version["pythonVersion"] == "3.5" and version["state"] == "READY"


def check_predictions(reader: Reader, runtime: str, flags: str) -> None:
    """The model is served, online and in batch, by the runtime that it was made in."""
    script = reader.project / "scripts" / "create-prediction-service.sh"
    script.write_text(script.read_text().replace("--runtime-version 1.8", flags))
    printed = reader.source("create-prediction-service.sh")
    assert re.search(r"Created (ml engine|ai platform) model \[projects/", printed)  # newer gclouds say the latter
    version = connect(url=reader.engine.url).versions("iris").get("v1")
    assert version["runtimeVersion"] == runtime and version["state"] == "READY"
    samples = (reader.project / "test-sample.json").read_text().splitlines()
    printed = reader.source("online-prediction.sh")
    assert "CLASSES" in printed and "SCORES" in printed
    assert len(re.findall(r"\['0', '1', '2'\]", printed)) == len(samples)

    printed = reader.source("run-batch-predictions.sh")
    assert f"Using runtime {runtime} with Python" in printed
    predictions = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    hold_out = (reader.project / "hold_out_test.csv").read_text().splitlines()
    assert len(predictions) == len(hold_out) - 1  # the header is no flower: it gets an error
    for each in predictions:
        assert each["classes"] == ["0", "1", "2"] and len(each["scores"]) == 3
        assert abs(sum(each["scores"]) - 1) < 1e-3


def check_training(reader: Reader, printed: str, tasks: list[str]) -> None:
    """The job has succeeded with these replicas, and left a model that is right."""
    assert "state: SUCCEEDED" in printed
    assert set(re.findall(r"\t([a-z]+-replica-\d+)\t", printed)) == set(tasks)
    saved = re.findall(r"Saving dict for global step (\d+): accuracy = ([\d.]+)", printed)
    assert int(saved[-1][0]) >= STEPS and float(saved[-1][1]) > 0.8
    (job_id,) = re.findall(r"Job \[(\w+)\] submitted successfully", printed)
    client = connect(url=reader.engine.url)
    names = [each.uri.name for each in client.storage.list("iris-dataset", f"jobs/{job_id}/export/iris/")]
    assert any(re.search(r"/\d+/saved_model.pb$", name) for name in names), names


def needs_python(version: str) -> None:
    if Interpreters().find(version) is None:
        pytest.skip(f"no Python {version} is installed here")
