"""Event files that TensorFlow and Keras write, and reports of cloudml-hypertune.

Slow: it imports TensorFlow and trains a model; at the first time it builds the runtime.
"""

import os
import subprocess
from pathlib import Path

import pytest
import uv

from enginehouse.core.clock import SystemClock
from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import put
from enginehouse.testing.tools import installed
from enginehouse.tuning.metrics import TrialMetrics
from enginehouse.tuning.metrics_sources import BucketDirectory, DiskDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The directory, and what Keras itself says of its last epoch: val_mae, loss."""
    directory = tmp_path_factory.mktemp("events")
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))
    python = cache.ensure(Catalogue.load().resolve("2.21", None), print).python
    script = Path(__file__).with_name("make_event_files.py")
    done = subprocess.run([python, script, directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory, [float(word) for word in done.stdout.split()[-2:]]


def metrics_below(directory: Path) -> TrialMetrics:
    metrics = TrialMetrics(DiskDirectory(directory))
    assert metrics.poll()
    assert not metrics.notes()
    return metrics


def test_summaries_of_tensorflow_1(written: tuple[Path, list[float]]) -> None:
    metric = metrics_below(written[0] / "one").find("rmse")
    assert metric is not None
    assert metric.tag == "tower/rmse"
    assert [(point.step, point.value) for point in metric.points] == [
        (step, pytest.approx(1 / step)) for step in (100, 200, 300)
    ]
    assert abs(metric.last().time_s - Path(written[0]).stat().st_mtime) < 600


def test_summaries_of_tensorflow_2(written: tuple[Path, list[float]]) -> None:
    metrics = metrics_below(written[0] / "two")
    assert metrics.tags() == ["half", "training/hptuning/metric"]
    metric, half = metrics.find("training/hptuning/metric"), metrics.find("half")
    assert metric is not None and half is not None
    assert [(point.step, point.value) for point in metric.points] == [(0, 0.5), (1, 0.625), (2, 0.75)]
    assert not metric.notes
    assert half.last().value == 0.25


def test_keras_tags_of_epochs(written: tuple[Path, list[float]]) -> None:
    metrics = metrics_below(written[0])
    val_mae, loss = written[1]
    for asked, value in (("val_mae", val_mae), ("mae", val_mae), ("epoch_mae", val_mae)):
        metric = metrics.find(asked)
        assert metric is not None
        assert metric.last().value == pytest.approx(value, rel=1e-5)
        assert metric.last().step == 2
    training = metrics_below(written[0] / "keras" / "train").find("loss")
    assert training is not None
    assert training.last().value == pytest.approx(loss, rel=1e-5)


def test_a_file_that_grows_in_a_bucket_as_tensorflow_flushes_it(
    written: tuple[Path, list[float]], tmp_path: Path
) -> None:
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    store.create_bucket("bucket")
    (file,) = (written[0] / "two").iterdir()
    data, seen = file.read_bytes(), []
    metrics = TrialMetrics(BucketDirectory(store, ObjectUri("bucket", "jobs/1")))
    for size in range(0, len(data) + 97, 97):
        put(store, f"jobs/1/{file.name}", data[:size], bucket="bucket")
        metrics.poll()
        metric = metrics.find("training/hptuning/metric")
        seen.append(len(metric.points) if metric else 0)
    assert seen == sorted(seen)
    assert seen[-1] == 3


def test_reports_of_cloudml_hypertune(tmp_path: Path) -> None:
    """Its real package, with more reports than it keeps."""
    python = installed("cloudml-hypertune==0.1.0.dev6") / "python"
    file = tmp_path / "hypertune" / "output.metrics"
    code = (
        "import hypertune; tune = hypertune.HyperTune()\n"
        "for step in range(120):\n"
        "    tune.report_hyperparameter_tuning_metric('accuracy', step / 128, global_step=step)\n"
        "    if step == 60: input('here')\n"
    )
    environment = os.environ | {"CLOUD_ML_HP_METRIC_FILE": str(file), "CLOUD_ML_TRIAL_ID": "7"}
    metrics = TrialMetrics(DiskDirectory(tmp_path / "job"), [file])
    pipe = subprocess.PIPE
    with subprocess.Popen([python, "-c", code], stdin=pipe, stdout=pipe, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == "here"
        metrics.poll()
        assert len(_values(metrics)) == 61
        process.communicate("\n")
    metrics.poll()
    assert _values(metrics) == [step / 128 for step in range(120)]


def _values(metrics: TrialMetrics) -> list[float]:
    metric = metrics.find("accuracy")
    return [point.value for point in metric.points] if metric else []
