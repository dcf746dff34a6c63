"""The reporter that trainers import, in every Python that a runtime may have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse import sdk
from enginehouse.backends.local import LocalBackend
from enginehouse.replica.environment import LIBRARY_DIR, write_library
from enginehouse.testing.replicas import ReplicaFactory, messages, wait_for_end
from enginehouse.tuning.metrics import TrialMetrics
from enginehouse.tuning.metrics_sources import DiskDirectory, Point

REPORTS = """
import multiprocessing, sys
from enginehouse import sdk
def work(number):
    for step in range(50):
        sdk.report("accuracy", step / 64.0, step=100 * number + step)
workers = [multiprocessing.Process(target=work, args=(number,)) for number in range(3)]
for worker in workers: worker.start()
for worker in workers: worker.join()
sdk.report(u"nan", float("nan"), 7)
"""


def interpreters() -> list[str]:
    """One of each line that pyenv has on this host, and the one that runs this test."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = {path.name.rpartition(".")[0]: str(path / "bin" / "python") for path in sorted(root.glob("[23].*"))}
    return [sys.executable, *(found[line] for line in ("2.7", "3.6", "3.13") if line in found)]


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.split("/")[-3])
def test_reports_of_several_processes(python: str, tmp_path: Path) -> None:
    write_library(tmp_path / LIBRARY_DIR)
    script = tmp_path / "task.py"
    script.write_text(REPORTS)
    file = tmp_path / "hypertune" / "output.metrics"
    environment = {
        "PYTHONPATH": str(tmp_path / LIBRARY_DIR),
        "CLOUD_ML_HP_METRIC_FILE": str(file),
        "CLOUD_ML_TRIAL_ID": "3",
    }
    done = subprocess.run([python, script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.returncode) == ("", 0)
    metrics = TrialMetrics(DiskDirectory(tmp_path / "job"), [file])
    metrics.poll()
    accuracy = metrics.find("accuracy")
    assert accuracy is not None
    steps = [100 * number + step for number in range(3) for step in range(50)]
    assert [(point.step, point.value) for point in accuracy.points] == [(step, step % 100 / 64) for step in steps]
    assert metrics.tags() == ["accuracy", "nan"]
    assert json.loads(file.read_text().splitlines()[0])["trial"] == "3"


def test_outside_of_a_trial_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUD_ML_HP_METRIC_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    sdk.report("accuracy", 1.0, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_value_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "output.metrics"))
    with pytest.raises(ValueError, match="could not convert"):
        sdk.report("accuracy", "high", 1)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_trainer_in_a_replica(replicas: ReplicaFactory, tmp_path: Path) -> None:
    file = tmp_path / "metrics"
    code = "from enginehouse import sdk; sdk.report('loss', 0.25, 5); print('reported')"
    backend, directory = LocalBackend(), tmp_path / "replica"
    backend.launch(directory, replicas.spec(code, environment={"CLOUD_ML_HP_METRIC_FILE": str(file)}))
    wait_for_end(backend, directory)
    assert "reported" in messages(directory)
    metrics = TrialMetrics(DiskDirectory(tmp_path / "job"), [file])
    metrics.poll()
    loss = metrics.find("loss")
    assert loss is not None
    (point,) = loss.points
    assert point == Point(5, 0.25, point.time_s)


def test_the_installed_package_stays_importable(tmp_path: Path) -> None:
    write_library(tmp_path)
    code = "from enginehouse.sdk import client, report; import enginehouse.core; print(report.__module__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "enginehouse.sdk\n"
