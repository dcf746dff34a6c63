"""One engine for the clients of a test run, and the environment of a shell that `mle env` wired to it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httplib2
import pytest
from google.cloud import storage
from googleapiclient import discovery

from enginehouse.testing.engine import EngineProcess, make_sdist

PROJECT = "demo-project"
PARENT = f"projects/{PROJECT}"
BUCKET = "conformance"
MODEL_URI = f"gs://{BUCKET}/jobs/made_1"
TRAINER = """\
import argparse
import joblib
from google.cloud import storage
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
folder = parser.parse_args().job_dir
iris = load_iris()
joblib.dump(DecisionTreeClassifier(random_state=0).fit(iris.data, iris.target), "model.joblib")
bucket, _, prefix = folder[len("gs://"):].partition("/")
storage.Client().bucket(bucket).blob(prefix + "/model.joblib").upload_from_filename("model.joblib")
print("line one\\nline two")
"""


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data") as engine:
        yield engine


@pytest.fixture(scope="session")
def wired(shared_engine: EngineProcess) -> dict[str, str]:
    """What the environment is after `eval "$(mle env)"`."""
    mle = f"{sys.executable} -m enginehouse.cli"
    script = f'eval "$({mle} env --shell bash --project {PROJECT} --data-dir {shared_engine.data_dir})" && env -0'
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    return dict(line.split("=", 1) for line in printed.split("\0") if line)


@pytest.fixture
def in_wired_shell(wired: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process one that was started from a wired shell."""
    for name in set(os.environ) - set(wired):
        monkeypatch.delenv(name)
    _enter(wired, monkeypatch)


def _enter(wired: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    for name, value in wired.items():
        patch.setenv(name, value)
    patch.setattr(httplib2, "CA_CERTS", httplib2.certs.where())  # which it does when it is imported


@pytest.fixture
def ml(in_wired_shell: None) -> Any:
    """google-api-python-client with nothing told to it."""
    return discovery.build("ml", "v1")


@pytest.fixture(scope="session")
def trained_model(wired: Mapping[str, str]) -> str:
    """Where a model lies that a job has trained; the job's id is made_1."""
    with pytest.MonkeyPatch.context() as patch:
        _enter(wired, patch)
        bucket = storage.Client().create_bucket(BUCKET)
        bucket.blob("trainer-0.1.tar.gz").upload_from_string(make_sdist({"trainer/task.py": TRAINER}))
        bucket.blob("instances.txt").upload_from_string("[5.1, 3.5, 1.4, 0.2]\n[6.3, 2.9, 5.6, 1.8]\n")
        jobs = discovery.build("ml", "v1").projects().jobs()
        jobs.create(parent=PARENT, body=training_job("made_1")).execute()
        assert wait_for_job(jobs, "made_1")["state"] == "SUCCEEDED"
    return MODEL_URI


def training_job(job_id: str, **training_input: Any) -> dict[str, Any]:
    """The body of a small job."""
    return {
        "jobId": job_id,
        "labels": {"made-by": "test"},
        "trainingInput": {
            "region": "us-central1",
            "runtimeVersion": "scikit-learn-1.9",
            "pythonModule": "trainer.task",
            "packageUris": [f"gs://{BUCKET}/trainer-0.1.tar.gz"],
            "jobDir": f"gs://{BUCKET}/jobs/{job_id}",
            **training_input,
        },
    }


def wait_for_job(jobs: Any, job_id: str) -> dict[str, Any]:
    """The job when it has ended."""
    deadline = time.monotonic() + 300
    while True:
        job: dict[str, Any] = jobs.get(name=f"{PARENT}/jobs/{job_id}").execute()
        if "endTime" in job:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


def write(path: Path, text: str) -> Path:
    """A file with `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
