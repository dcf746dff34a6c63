"""Shells wired by `mle env`: the commands of the Cloud ML Engine era, with the real Cloud SDK and with none.

Slow because the real gcloud takes seconds a command and a TensorFlow job trains.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess

TOOLS = ("bash", "sh", "date", "cat", "ls", "dirname", "sort", "tail", "head", "env", "sed", "grep", "sleep", "mkdir")
SDK = shutil.which("gcloud") and shutil.which("gsutil")

# The commands of the textbook chapter's scikit-learn project, on a runtime that there is.
PREPARE = """\
gsutil mb gs://{bucket}
gsutil cp train_data.csv gs://{bucket}
gsutil cp test_data.csv gs://{bucket}
gsutil cp hold_out_test.csv gs://{bucket}
"""
TRAIN = """\
JOB_NAME=iris_sklearn_{suffix}
gcloud ml-engine jobs submit training $JOB_NAME --stream-logs --scale-tier BASIC --runtime-version scikit-learn-1.9 \\
  --job-dir gs://{bucket}/jobs/$JOB_NAME --module-name trainer.model --package-path trainer/ --region us-central1 \\
  -- --train-file gs://{bucket}/train_data.csv --eval-file gs://{bucket}/test_data.csv
"""
DEPLOY = """\
gcloud ml-engine models create {model} --regions=us-central1
gcloud ml-engine versions create v1 --model {model} --origin gs://{bucket}/jobs/iris_sklearn_{suffix} \\
  --runtime-version scikit-learn-1.9 --framework SCIKIT_LEARN
"""
PREDICT = """\
gsutil cp test-sample.json gs://{bucket}/test-sample.json
gsutil cp gs://{bucket}/test-sample.json ./downloaded.json
gcloud ml-engine predict --model {model} --version v1 --json-instances ./downloaded.json
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data") as engine:
        yield engine


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project that `mle init` writes."""
    subprocess.run([*mle(), "init", "iris", "--framework", "sklearn", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path / "iris"


def mle() -> list[str]:
    return [sys.executable, "-m", "enginehouse.cli"]


def path_without_sdk(directory: Path) -> str:
    """A PATH on which there is no Cloud SDK: a folder of links to what the scripts use."""
    directory.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (directory / tool).symlink_to(found)
    return str(directory)


def source(script: str, project: Path, engine: EngineProcess, environ: dict[str, str]) -> str:
    """Run a script by `source` in a shell that `mle env` wired; what it printed."""
    (project / "script.sh").write_text(script)
    wiring = f"{' '.join(mle())} env --shell bash --data-dir {engine.data_dir}"
    result = subprocess.run(
        ["bash", "-c", f'eval "$({wiring})" && set -e && source ./script.sh'],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize("sdk", ["with-sdk", "without-sdk"])
def test_the_chapters_commands(sdk: str, engine: EngineProcess, project: Path, tmp_path: Path) -> None:
    environ = dict(os.environ)
    if sdk == "with-sdk":
        if not SDK:
            pytest.skip("no Cloud SDK is installed (gcloud and gsutil on PATH)")
    else:
        environ["PATH"] = path_without_sdk(tmp_path / "bin")
        assert shutil.which("gcloud", path=environ["PATH"]) is None
    suffix = sdk.replace("-", "_")
    names = {"bucket": f"iris-{sdk}", "model": f"iris_{suffix}", "suffix": suffix}
    source(PREPARE.format(**names), project, engine, environ)
    trained = source(TRAIN.format(**names), project, engine, environ)
    assert f"Job [iris_sklearn_{suffix}] submitted successfully." in trained
    assert "\tservice\t\tJob completed successfully." in trained
    assert "state: SUCCEEDED" in trained
    deployed = source(DEPLOY.format(**names), project, engine, environ)
    assert f"models/iris_{suffix}]" in deployed
    predicted = source(PREDICT.format(**names), project, engine, environ)
    for name in ("setosa", "versicolor", "virginica"):
        assert name in predicted


def test_a_shell_is_put_back_as_it_was(engine: EngineProcess, tmp_path: Path) -> None:
    wire = f"{' '.join(mle())} env --shell bash --data-dir {engine.data_dir}"
    unset = f"{' '.join(mle())} env --shell bash --unset"
    script = f'env | sort > before; eval "$({wire})"; env | sort > wired; eval "$({unset})"; env | sort > after'
    environ = {**os.environ, "CURL_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environ, check=True, timeout=60)

    def variables(name: str) -> list[str]:
        return [line for line in (tmp_path / name).read_text().splitlines() if not line.startswith("_=")]

    assert variables("after") == variables("before")
    assert "https_proxy=" in (tmp_path / "wired").read_text()


def test_one_command_is_wired_by_run(engine: EngineProcess, tmp_path: Path) -> None:
    url = "https://us-central1-ml.googleapis.com/v1/projects/demo/models"
    command = [*mle(), "run", "--data-dir", str(engine.data_dir), "--", "curl", "-sS", url]
    answered = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (answered.returncode, answered.stdout) == (0, "{}"), answered.stderr


TF_TRAINER = """\
import argparse, subprocess
import tensorflow as tf
from tensorflow.python.lib.io import file_io

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
folder = parser.parse_args().job_dir
tf.io.gfile.makedirs(folder + "/text")
with tf.io.gfile.GFile(folder + "/text/a", "w") as file:
    file.write("line\\n" * 1000)
tf.io.gfile.rename(folder + "/text/a", folder + "/text/b")
print("listed", tf.io.gfile.listdir(folder + "/text"), tf.io.gfile.exists(folder + "/text/a"))
print("lines", sum(1 for _ in tf.data.TextLineDataset(folder + "/text/b")))
print("file_io", len(file_io.FileIO(folder + "/text/b", "r").read()))
variable = tf.Variable(tf.random.normal((1024, 1024)))
checkpoint = tf.train.Checkpoint(variable=variable)
path = checkpoint.save(folder + "/checkpoints/c")
kept = variable.numpy().copy()
variable.assign(tf.zeros((1024, 1024)))
checkpoint.restore(tf.train.latest_checkpoint(folder + "/checkpoints")).assert_consumed()
print("restored", bool((variable.numpy() == kept).all()))
with tf.summary.create_file_writer(folder + "/events").as_default():
    tf.summary.scalar("accuracy", 0.5, step=1)
subprocess.run(["gsutil", "-q", "cp", folder + "/text/b", "copied"], check=True)
print("copied", len(open("copied").read()))
tf.io.gfile.rmtree(folder + "/text")
print("removed", not tf.io.gfile.exists(folder + "/text"))
"""


def test_tensorflow_reaches_buckets_in_a_job(engine: EngineProcess, tmp_path: Path) -> None:
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "task.py").write_text(TF_TRAINER)
    at = ["--data-dir", str(engine.data_dir)]
    subprocess.run([*mle(), "storage", "mb", "gs://tf-bucket", *at], check=True, timeout=60)
    submit = [*mle(), "jobs", "submit", "training", "tf_1", "--stream-logs", "--runtime-version", "2.21", *at]
    submit += ["--module-name", "trainer.task", "--package-path", str(package), "--job-dir", "gs://tf-bucket/tf_1"]
    result = subprocess.run(submit, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout + result.stderr
    for line in ("listed ['b'] False", "lines 1000", "file_io 5000", "restored True", "copied 5000", "removed True"):
        assert f"\t{line}\n" in said, said
