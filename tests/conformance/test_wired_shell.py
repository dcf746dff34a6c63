"""Shells, commands and jobs that are wired to an engine, and shells that are no longer.

Slow because a TensorFlow job trains.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data") as engine:
        yield engine


def mle() -> list[str]:
    return [sys.executable, "-m", "enginehouse.cli"]


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
