"""The trials of a tuning job in the terminal and as a picture; steering a job; a config from a trainer's options."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from enginehouse.jobs import hyperparameters
from enginehouse.schemas.ml_v1 import HyperparameterSpec
from enginehouse.schemas.wire import from_builtins
from enginehouse.testing.http import FakeHttpEngine

Mle = Callable[..., Any]
JOBS = "/v1/projects/p/jobs"
PARAMS: list[dict[str, Any]] = [
    {"parameterName": "rate", "type": "DOUBLE", "minValue": 0.001, "maxValue": 0.1, "scaleType": "UNIT_LOG_SCALE"},
    {"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": 9},
    {"parameterName": "kind", "type": "CATEGORICAL", "categoricalValues": ["a", "b<c"]},
    {"parameterName": "size", "type": "DISCRETE", "discreteValues": [16, 32]},
]


def trial(number: int, value: float | None, **fields: Any) -> dict[str, Any]:
    parameters = {"rate": str(0.001 * number), "units": str(number), "kind": "a", "size": "32"}
    shown = {"trialId": str(number), "hyperparameters": parameters, "state": "SUCCEEDED", **fields}
    return shown if value is None else {**shown, "finalMetric": {"trainingStep": "9", "objectiveValue": value}}


TUNED = {
    "jobId": "j1",
    "state": "RUNNING",
    "trainingInput": {"hyperparameters": {"goal": "MAXIMIZE", "params": PARAMS}},
    "trainingOutput": {
        "hyperparameterMetricTag": "accuracy",
        "trials": [
            trial(2, 0.9),
            trial(1, 0.5, isTrialStoppedEarly=True),
            trial(3, None, state="RUNNING"),
        ],
    },
}


@pytest.fixture
def tuning(engine: FakeHttpEngine) -> FakeHttpEngine:
    engine.on("GET", f"{JOBS}/j1", TUNED)
    engine.on("PATCH", f"{JOBS}/j1", TUNED)
    return engine


def test_trials_are_shown_as_a_table(mle: Mle, tuning: FakeHttpEngine) -> None:
    assert mle("jobs", "trials", "j1").out.splitlines() == [
        "TRIAL_ID  accuracy  STEP  STATE          rate   units  kind  size",
        "2         0.9       9     SUCCEEDED      0.002  2      a     32",
        "1         0.5       9     STOPPED_EARLY  0.001  1      a     32",
        "3                         RUNNING        0.003  3      a     32",
    ]


def test_a_job_that_tunes_nothing_has_no_trials(mle: Mle, engine: FakeHttpEngine) -> None:
    engine.on("GET", f"{JOBS}/j1", {"jobId": "j1", "trainingInput": {}})
    result = mle("jobs", "trials", "j1")
    assert result.code == 1
    assert "tunes no hyperparameters" in result.err


def test_trials_are_drawn(mle: Mle, tuning: FakeHttpEngine, tmp_path: Path) -> None:
    for name in ("trials.svg", "trials.html"):
        assert mle("jobs", "trials", "j1", "--plot", tmp_path / name).code == 0
    svg = (tmp_path / "trials.svg").read_text()
    assert svg in (tmp_path / "trials.html").read_text()
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(svg)
    assert len(root.findall(f"{space}circle")) == 2, "a dot for each trial with a metric"
    titles = [title.text or "" for title in root.iter(f"{space}title")]
    assert titles.count("Trial 2: accuracy 0.9; rate=0.002, units=2, kind=a, size=32") == 2, "as dot and as line"
    assert {text.text for text in root.iter(f"{space}text")} >= {"rate", "units", "kind", "size", "accuracy", "b<c"}


def test_a_png_is_drawn_or_says_what_it_needs(mle: Mle, tuning: FakeHttpEngine, tmp_path: Path) -> None:
    picture = tmp_path / "trials.png"
    result = mle("jobs", "trials", "j1", "--plot", picture)
    if find_spec("PIL") is None:
        assert "pip install 'enginehouse[plot]'" in result.err
    else:
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert struct.unpack(">II", data[16:24]) == (1920, 1520)


def test_another_format_is_refused(mle: Mle, tuning: FakeHttpEngine, tmp_path: Path) -> None:
    result = mle("jobs", "trials", "j1", "--plot", tmp_path / "trials.bmp")
    assert result.code == 1
    assert ".svg, .html or .png" in result.err
    assert not (tmp_path / "trials.bmp").exists()


def test_a_running_job_is_steered(mle: Mle, tuning: FakeHttpEngine) -> None:
    widened = ("--widen", "rate=0.0001:1", "--widen", "kind=d", "--widen", "size=64,8")
    assert mle("jobs", "update", "j1", "--max-trials", "20", *widened).code == 0
    sent = tuning.requests[-1]
    field = "trainingInput.hyperparameters"
    assert sent.query == {"updateMask": f"{field}.maxTrials,{field}.params"}
    spec = sent.json()["trainingInput"]["hyperparameters"]
    assert spec["maxTrials"] == 20
    rate, units, kind, size = spec["params"]
    assert (rate["minValue"], rate["maxValue"]) == (0.0001, 1)
    assert units == PARAMS[1]
    assert kind["categoricalValues"] == ["a", "b<c", "d"]
    assert size["discreteValues"] == [8, 16, 32, 64]


def test_a_range_that_cannot_be_read_is_told(mle: Mle, tuning: FakeHttpEngine) -> None:
    assert "0.001:0.1" in mle("jobs", "update", "j1", "--widen", "rate=1").err
    assert "the parameters are rate, units, kind, size" in mle("jobs", "update", "j1", "--widen", "rat=1:2").err


def test_a_trial_is_stopped(mle: Mle, engine: FakeHttpEngine) -> None:
    engine.on("POST", "/v1/projects/p/locations/jobs/studies/j1/trials/3:stop", {})
    assert mle("jobs", "stop-trial", "j1", "3").err == "Trial 3 of [j1] is asked to end.\n"


TASK = """\
import argparse
from enginehouse import sdk
parser = argparse.ArgumentParser()
parser.add_argument('--job-dir')
parser.add_argument('--learning_rate', '-l', type=float, default=10 ** -3)
parser.add_argument('--num-layers', type=int, default=3)
parser.add_argument('--optimizer', choices=['adam', 'yes'], default='adam')
parser.add_argument('--width', type=int, choices=[64, 32])
parser.add_argument('--dropout', type=float)
parser.add_argument('--train-files', nargs='+')
parser.add_argument('--shuffle', action='store_true')
parser.add_argument('--seed', type=int, default=1)
sdk.report('val_loss', 0.1)
raise SystemExit('this is read, not run')
"""


def test_a_config_is_suggested_from_the_options_of_a_trainer(mle: Mle, package: Path, tmp_path: Path) -> None:
    (package / "task.py").write_text(TASK)
    (package / "old.py").write_text("print 'Python 2'\n")
    result = mle("hptuning", "suggest-config", "--package-path", package, "--max-trials", "7")
    assert "old.py is no Python 3" in result.err
    assert "Left out: --job-dir, --train-files, --shuffle, --seed." in result.err
    config = yaml.safe_load(result.out)["trainingInput"]["hyperparameters"]
    spec = from_builtins(HyperparameterSpec, config)
    assert list(hyperparameters.faults(spec)) == []
    assert (spec.goal, spec.hyperparameter_metric_tag, spec.max_trials) == ("MINIMIZE", "val_loss", 7)
    assert [(param.parameter_name, param.type) for param in spec.params] == [
        ("learning_rate", "DOUBLE"),
        ("num-layers", "INTEGER"),
        ("optimizer", "CATEGORICAL"),
        ("width", "DISCRETE"),
        ("dropout", "DOUBLE"),
    ]
    rate = spec.params[0]
    assert (rate.min_value, rate.max_value, rate.scale_type) == (0.00001, 0.1, "UNIT_LOG_SCALE")
    assert spec.params[2].categorical_values == ["adam", "yes"]
    written = tmp_path / "hptuning_config.yaml"
    assert mle("hptuning", "suggest-config", "--package-path", package, "--output", written).code == 0
    assert yaml.safe_load(written.read_text())["trainingInput"]["hyperparameters"]["params"] == config["params"]
    again = mle("hptuning", "suggest-config", "--package-path", package, "--output", written)
    assert again.code == 1
    assert "is there already" in again.err
