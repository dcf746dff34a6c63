"""`mle jobs submit prediction`, by the body that arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from enginehouse.testing.http import FakeHttpEngine

Mle = Callable[..., Any]
JOBS = "/v1/projects/p/jobs"
REQUIRED = ("--data-format", "TEXT", "--input-paths", "gs://b/in*,gs://b/more", "--output-path", "gs://b/out")


def spec(mle: Mle, engine: FakeHttpEngine, *flags: str) -> dict[str, Any]:
    """The predictionInput of a job submitted with the flags."""
    engine.on("POST", JOBS, {"jobId": "j1", "state": "QUEUED"})
    done = mle("jobs", "submit", "prediction", "j1", *REQUIRED, *flags)
    assert done.code == 0, done.err
    assert "Job [j1] submitted successfully." in done.err
    [request] = engine.of("POST")
    assert request.json()["jobId"] == "j1"
    return dict(request.json()["predictionInput"])


def test_a_version(mle: Mle, engine: FakeHttpEngine) -> None:
    assert spec(
        mle, engine, "--model", "iris", "--version", "v1", "--batch-size", "10", "--region", "europe-west1"
    ) == {
        "versionName": "projects/p/models/iris/versions/v1",
        "dataFormat": "TEXT",
        "inputPaths": ["gs://b/in*", "gs://b/more"],
        "outputPath": "gs://b/out",
        "batchSize": "10",
        "region": "europe-west1",
    }


def test_the_default_version(mle: Mle, engine: FakeHttpEngine) -> None:
    found = spec(mle, engine, "--model", "iris")
    assert (found["modelName"], found["region"]) == ("projects/p/models/iris", "us-central1")


def test_a_uri(mle: Mle, engine: FakeHttpEngine) -> None:
    flags = ("--model-dir", "gs://b/m", "--data-format", "tf-record-gzip", "--signature-name", "s")
    found = spec(mle, engine, *flags, "--max-worker-count", "3", "--runtime-version", "2.21")
    assert found["uri"] == "gs://b/m"
    assert found["dataFormat"] == "TF_RECORD_GZIP"
    assert (found["signatureName"], found["maxWorkerCount"], found["runtimeVersion"]) == ("s", "3", "2.21")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (REQUIRED, "exactly one of --model and --model-dir"),
        ((*REQUIRED, "--model", "m", "--model-dir", "gs://b/m"), "exactly one of --model and --model-dir"),
        ((*REQUIRED, "--model-dir", "gs://b/m", "--version", "v"), "--version may only be given if --model is"),
        ((*REQUIRED[2:], "--model", "m"), "--data-format must be given"),
        ((*REQUIRED, "--model", "m", "--data-format", "xml"), "'xml' is not one of text, json"),
    ],
)
def test_wrong_command_lines(mle: Mle, engine: FakeHttpEngine, flags: tuple[str, ...], words: str) -> None:
    done = mle("jobs", "submit", "prediction", "j1", *flags)
    assert done.code == 2
    assert words in done.err
    assert not engine.of("POST")
