"""Batch prediction jobs are judged and planned."""

from pathlib import Path

import pytest
import uv

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.core.names import ObjectUri
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.prediction import FoundModel, PredictionValidator
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import PredictionInput
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock

VERSION = "projects/p/models/m/versions/v"


class OneModel:
    """Whatever is asked for is this model."""

    def __init__(self, framework: str, runtime_version: str) -> None:
        self._found = FoundModel(VERSION, framework, runtime_version, None, directory="/versions/1")

    def version(self, project: str, model_id: str, version_id: str | None) -> FoundModel:
        assert (project, model_id, version_id) == ("p", "m", "v")
        return self._found

    def at(self, uri: ObjectUri) -> FoundModel:
        return self._found


def plan(tmp_path: Path, framework: str, made_with: str, **fields: object) -> Plan:
    storage = LocalObjectStore(tmp_path / framework, FakeClock())
    try:
        storage.create_bucket("bucket")
        with storage.writer("bucket", "in/a.csv") as writer:
            writer.write(b"1")
        catalogue = Catalogue.load(uv=Path(uv.find_uv_bin()))
        validator = PredictionValidator(catalogue, storage, OneModel(framework, made_with))
        values = {
            "version_name": VERSION,
            "data_format": "JSON",
            "input_paths": ["gs://bucket/in/*"],
            "output_path": "gs://bucket/out",
            **fields,
        }
        return validator.plan("p", PredictionInput(**values))  # type: ignore[arg-type]
    finally:
        storage.close()


def test_a_plan_survives_being_stored(tmp_path: Path) -> None:
    found = plan(tmp_path, "SCIKIT_LEARN", "scikit-learn-1.9", max_worker_count=1)
    assert found.runtime_version == "scikit-learn-1.9"
    assert found.model is not None
    assert (found.model.directory, found.model.workers) == ("/versions/1", 1)
    assert Plan.from_json(found.to_json()) == found


def test_a_model_without_a_runtime_gets_the_latest(tmp_path: Path) -> None:
    assert plan(tmp_path, "TENSORFLOW", "").runtime_version == "2.21"
    assert plan(tmp_path, "ONNX", "").runtime_version.startswith("onnx-")


@pytest.mark.parametrize("framework", ["TENSORFLOW", "SCIKIT_LEARN"])
def test_a_model_of_an_old_python_stays_in_its_runtime(tmp_path: Path, framework: str) -> None:
    found = plan(tmp_path, framework, "1.8")
    assert found.runtime_version == "1.8"
    assert found.python_version in ("2.7", "3.6")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"version_name": ""}, "version_name", "exactly one of"),
        ({"model_name": "projects/p/models/m"}, "version_name", "exactly one of"),
        ({"version_name": "m/v"}, "version_name", "write projects/PROJECT/models/MODEL/versions/VERSION"),
        ({"data_format": "DATA_FORMAT_UNSPECIFIED"}, "data_format", "required"),
        ({"output_data_format": "TF_RECORD"}, "output_data_format", "JSON or CSV"),
        ({"input_paths": ["/in"]}, "input_paths", "not a Cloud Storage path"),
        ({"input_paths": ["gs://bucket/in/b*"]}, "input_paths", "No object matches"),
        ({"input_paths": ["gs://other/in"]}, "input_paths", "no bucket gs://other"),
        ({"output_path": "gs://other/out"}, "output_path", "no bucket gs://other"),
        ({"batch_size": -1}, "batch_size", "negative"),
        ({"runtime_version": "xgboost-3.2"}, "runtime_version", "has no TENSORFLOW"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, object], field: str, words: str) -> None:
    with pytest.raises((InvalidArgument, FailedPrecondition), match=words) as caught:
        plan(tmp_path, "TENSORFLOW", "2.21", **fields)
    assert caught.value.violations[0].field == f"prediction_input.{field}"
