"""A textbook chapter's two projects, by its own command lines: `source ./scripts/X.sh` in a wired shell.

Once with the real gcloud and gsutil of the Cloud SDK, once with none on PATH. Slow because both train and serve.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.chapter import Reader, environ_with_sdk, environ_without_sdk
from conformance.conftest import write
from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PREPARE = """\
gsutil mb gs://$bucket_name
gsutil cp train_data.csv gs://$bucket_name
gsutil cp test_data.csv gs://$bucket_name
gsutil cp hold_out_test.csv gs://$bucket_name
"""
TENSORFLOW = {
    "single-instance-training.sh": """\
export JOB_NAME=iris_`date '+%Y%m%d_%H%M%S'`
export GCS_JOB_DIR=gs://$bucket_name/jobs/$JOB_NAME
gcloud ai-platform jobs submit training $JOB_NAME \\
  --stream-logs \\
  --runtime-version 2.21 \\
  --job-dir $GCS_JOB_DIR \\
  --module-name trainer.task \\
  --package-path trainer/ \\
  --region us-central1 \\
  -- \\
  --train-files gs://$bucket_name/train_data.csv \\
  --eval-files gs://$bucket_name/test_data.csv \\
  --train-steps 500 \\
  --eval-steps 100
""",
    "create-prediction-service.sh": """\
export MODEL_BINARIES=`gsutil ls gs://$bucket_name/jobs/*/export/iris/ | sort | tail -n 1`
gcloud ai-platform models create iris --regions us-central1
gcloud ai-platform versions create v1 --model iris --origin $MODEL_BINARIES --runtime-version 2.21
""",
    "online-prediction.sh": """\
gcloud ai-platform predict --model iris --version v1 --json-instances test-sample.json
""",
    "run-batch-predictions.sh": """\
export JOB_NAME=iris_prediction
export GCS_JOB_DIR=gs://$bucket_name/jobs/$JOB_NAME
gcloud ai-platform jobs submit prediction $JOB_NAME \\
  --model iris \\
  --version v1 \\
  --data-format TEXT \\
  --region us-central1 \\
  --input-paths gs://$bucket_name/hold_out_test.csv \\
  --output-path $GCS_JOB_DIR/predictions
gcloud ai-platform jobs stream-logs $JOB_NAME
gsutil ls $GCS_JOB_DIR/predictions/
gsutil cat $GCS_JOB_DIR/predictions/prediction.results-00000-of-00001
""",
}
SKLEARN = {
    "single-instance-training.sh": """\
export JOB_NAME=iris_`date '+%Y%m%d_%H%M%S'`
gcloud ml-engine jobs submit training $JOB_NAME \\
  --stream-logs \\
  --scale-tier BASIC \\
  --runtime-version scikit-learn-1.9 \\
  --job-dir gs://$bucket_name/jobs/$JOB_NAME \\
  --module-name trainer.model \\
  --package-path trainer/ \\
  --region us-central1 \\
  --python-version 3.11 \\
  -- \\
  --train-file gs://$bucket_name/train_data.csv \\
  --eval-file gs://$bucket_name/test_data.csv
""",
    "create-prediction-service.sh": """\
gcloud ml-engine models create iris_sklearn --regions=us-central1
cat > config.yaml <<END
deploymentUri: "`gsutil ls -d gs://$bucket_name/jobs/* | tail -n 1`"
runtimeVersion: 'scikit-learn-1.9'
framework: "SCIKIT_LEARN"
pythonVersion: "3.11"
END
gcloud ml-engine versions create v1 --model iris_sklearn --config config.yaml
""",
    "online-prediction.sh": """\
gsutil cp test-sample.json gs://$bucket_name/test-sample.json
gsutil cp gs://$bucket_name/test-sample.json ./downloaded.json
gcloud ml-engine predict --model iris_sklearn --version v1 --json-instances ./downloaded.json
""",
}
PROJECTS = {"tensorflow": TENSORFLOW, "sklearn": SKLEARN}
TYPES = {"setosa", "versicolor", "virginica"}


@pytest.fixture(params=["with-sdk", "without-sdk"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return environ_with_sdk() if request.param == "with-sdk" else environ_without_sdk(tmp_path)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data") as engine:
        yield engine


@pytest.mark.parametrize("framework", PROJECTS)
def test_the_project(framework: str, environ: dict[str, str], engine: EngineProcess, tmp_path: Path) -> None:
    project = tmp_path / "Iris"
    reader = Reader(project, engine, environ)
    reader.init(framework)
    shutil.rmtree(project / "scripts")
    for name, text in {"prepare.sh": PREPARE, **PROJECTS[framework]}.items():
        write(project / "scripts" / name, text)
    source = reader.source
    source("prepare.sh")
    trained = source("single-instance-training.sh")
    assert "] submitted successfully." in trained
    assert "\tservice\t\tValidating job" in trained, trained
    assert streamed_to_its_end(trained, environ), trained
    assert "state: SUCCEEDED" in trained
    source("create-prediction-service.sh")
    predicted = source("online-prediction.sh")
    samples = [json.loads(line) for line in (project / "test-sample.json").read_text().splitlines()]
    assert sum(predicted.count(name) for name in TYPES) >= len(samples)
    if "run-batch-predictions.sh" in PROJECTS[framework]:
        printed = source("run-batch-predictions.sh")
        assert streamed_to_its_end(printed, environ), printed
        assert "/predictions/prediction.errors_stats-00000-of-00001" in printed
        flowers = (project / "hold_out_test.csv").read_text().splitlines()[1:]
        predictions = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        assert len(predictions) == len(flowers)
        right = [
            each["class"] == flower.rpartition(",")[2] for each, flower in zip(predictions, flowers, strict=True)
        ]
        assert sum(right) > 0.8 * len(right)


def streamed_to_its_end(printed: str, environ: dict[str, str]) -> bool:
    """Whether a job's log was shown whole.

    The real gcloud asks only for lines that are five seconds old, and stops after two polls without any once the job
    has ended: at short intervals the last lines may be missing there.
    """
    has_sdk = shutil.which("gcloud", path=environ["PATH"]) is not None
    return has_sdk or "\tservice\t\tJob completed successfully." in printed
