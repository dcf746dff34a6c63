"""The chapter's tuning scripts: four trials, two at a time; the best one is deployed by the next script.

Slow because each trial is a training of TensorFlow; those of the chapter's own runtime on clusters of eight.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.chapter import Reader, environ_with_sdk
from conformance.conftest import write
from conformance.test_chapter_originals import PREPARE, needs_python
from enginehouse.sdk.client import connect
from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DEPLOY = """\
gcloud ai-platform models create iris --regions us-central1
gcloud ai-platform versions create v1 --model iris --origin $MODEL_BINARIES --runtime-version {runtime}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_ALLOW_MISSING_ACCELERATORS": "*"}) as engine:
        yield engine


def test_tuning_on_the_current_runtime(engine: EngineProcess, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "Iris", engine, environ_with_sdk())
    reader.init("tensorflow")
    write(reader.project / "scripts" / "prepare.sh", PREPARE)
    reader.source("prepare.sh")
    script = reader.project / "scripts" / "hyper-tune.sh"
    script.write_text(script.read_text().replace("--train-steps 1000", "--train-steps 400"))
    for name in ("hyper-tune", "online-prediction"):  # these are to be run, not sourced, and call mle
        here = f'PATH="{Path(sys.executable).parent}:$PATH" bash ./scripts/{name}.sh\n'
        write(reader.project / "scripts" / f"run-{name}.sh", here)
    printed = reader.source("run-hyper-tune.sh", timeout_s=1200)
    assert "never read" not in printed
    deploy_the_best(reader, check_tuning(reader, printed, steps="400"), runtime="2.21")
    (line,) = reader.source("run-online-prediction.sh").strip().splitlines()[-1:]
    assert re.search("setosa|versicolor|virginica", line)


@pytest.mark.long
@pytest.mark.parametrize("script", ["hyper-tune.sh", "gpu-hyper-tune.sh"])
def test_tuning_as_it_was(engine: EngineProcess, tmp_path: Path, script: str) -> None:
    needs_python("2.7")
    reader = Reader(tmp_path / "IrisCloudML", engine, environ_with_sdk())
    reader.init("tensorflow1")
    write(reader.project / "scripts" / "prepare.sh", PREPARE)
    reader.source("prepare.sh")
    printed = reader.source(script, timeout_s=3000)
    warnings = [line for line in printed.splitlines() if "never read --learning-rate" in line]
    assert len(warnings) == 1
    assert "Did you mean --learning_rate?" in warnings[0]
    if script.startswith("gpu"):
        assert "which this machine does not have; it runs on CPUs" in printed
    deploy_the_best(reader, check_tuning(reader, printed, steps="5000"), runtime="1.8")


def check_tuning(reader: Reader, printed: str, *, steps: str) -> dict[str, Any]:
    """The job that a script ran, which must have gone as the chapter tells."""
    assert "state: SUCCEEDED" in printed
    assert re.search(r"Trial \d of 4 completed: accuracy .*; best so far: trial \d, [\d.]+", printed)
    client = connect(url=reader.engine.url)
    (job,) = client.jobs.list()
    output = job["trainingOutput"]
    assert output["completedTrialCount"] == "4"
    assert sorted(trial["trialId"] for trial in output["trials"]) == ["1", "2", "3", "4"]
    objectives = [trial["finalMetric"]["objectiveValue"] for trial in output["trials"]]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[0] > 0.5
    # At the end of a cluster's training the step may be a little beyond.
    assert all(int(trial["finalMetric"]["trainingStep"]) >= int(steps) for trial in output["trials"])
    names = {"learning-rate", "first-layer-size", "num-layers", "scale-factor"}
    assert all(set(trial["hyperparameters"]) == names for trial in output["trials"])
    return job


def deploy_the_best(reader: Reader, job: dict[str, Any], *, runtime: str) -> None:
    """What the reader does next, with the trial that comes first."""
    best = f"{job['trainingInput']['jobDir']}/{job['trainingOutput']['trials'][0]['trialId']}"
    newest = f"export MODEL_BINARIES=`gsutil ls {best}/export/iris/ | grep '/[0-9]*/$' | sort | tail -n 1`\n"
    write(reader.project / "scripts" / "deploy.sh", newest + DEPLOY.format(runtime=runtime))
    reader.source("deploy.sh")
    version = connect(url=reader.engine.url).versions("iris").get("v1")
    assert version["state"] == "READY"
    assert version["deploymentUri"].startswith(best + "/export/iris/")
