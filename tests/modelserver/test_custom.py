"""Custom prediction routines: the adapter by the contract, and versions with packages on a real engine."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import EngineError
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.client import Client, connect
from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import ExampleModel, Served
from enginehouse.testing.engine import EngineProcess, make_sdist

ROUTINE = """\
import os

class Scaler:
    def __init__(self, factor):
        self.factor = factor

    @classmethod
    def from_path(cls, model_dir):
        with open(os.path.join(model_dir, "factor.txt")) as file:
            return cls(float(file.read()))

    def predict(self, instances, **kwargs):
        if kwargs.get("as_one"):
            return sum(instances)
        return [self.factor * each + kwargs.get("plus", 0) for each in instances]

class Adder(Scaler):
    def predict(self, instances, **kwargs):
        return [self.factor * sum(each) for each in instances]

class NoRoutine:
    pass
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "routine.py").write_text(ROUTINE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "factor.txt").write_text("2")
    return tmp_path


def serve(directory: Path, class_name: str, *, explanation: str = "") -> Served:
    model = ExampleModel(f"CUSTOM:{class_name}", Path(sys.executable), directory / "model", [], None)
    version = model.version(explanation=explanation)
    return Served(type(version)(**{**vars(version), "site_dirs": (directory,)}), directory)


def test_a_routine(directory: Path) -> None:
    served = serve(directory, "routine.Scaler")
    try:
        assert served.predict(1, 2.5) == [2, 5]
        assert served.predict(1, 2, plus=10) == [12, 14]
        assert "routine.Scaler.predict raised TypeError: can't multiply" in served.error("a")
        assert "must return a list, not int" in served.error(1, 2, as_one=True)
    finally:
        served.close()


def test_a_routine_of_tables_is_explained(directory: Path) -> None:
    served = serve(directory, "routine.Adder", explanation='{"sampledShapleyAttribution": {"numPaths": 3}}')
    try:
        [entry] = served.explain([1, 2.5])
        assert entry["attributions"] == {"instances": [2, 5]}
    finally:
        served.close()


@pytest.mark.parametrize(
    ("class_name", "words"),
    [
        ("routine.Nobody", "routine.Nobody cannot be found. Please make sure (1) prediction_class"),
        ("nowhere.Scaler", "No module named 'nowhere'"),
        ("Scaler", "cannot be found"),
        ("routine.NoRoutine", "has no method from_path"),
    ],
)
def test_what_is_no_routine(directory: Path, class_name: str, words: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        serve(directory, class_name)
    assert words in caught.value.message


def test_what_from_path_raises(directory: Path) -> None:
    (directory / "model" / "factor.txt").write_text("two")
    with pytest.raises(ModelLoadError, match=r"Scaler\.from_path raised ValueError: could not convert"):
        serve(directory, "routine.Scaler")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with EngineProcess(tmp_path / "data") as engine:
        client = connect(data_dir=engine.data_dir)
        client.storage.create_bucket("cpr")
        files = {
            "model/factor.txt": b"3",
            "routine-0.1.tar.gz": make_sdist({"routine/code.py": ROUTINE}, name="routine"),
        }
        for name, data in files.items():
            client.storage.upload(io.BytesIO(data), ObjectUri("cpr", name))
        client.models.create({"name": "scaler"})
        yield client


@pytest.mark.slow
def test_a_version_with_packages(client: Client) -> None:
    """Slow: an engine, a package to install and a batch job."""
    body = {
        "name": "v1",
        "deploymentUri": "gs://cpr/model",
        "runtimeVersion": "scikit-learn-1.9",
        "predictionClass": "routine.code.Scaler",
        "packageUris": ["gs://cpr/routine-0.1.tar.gz"],
    }
    client.operations.wait(client.versions("scaler").create(body))
    shown = client.versions("scaler").get("v1")
    assert shown["predictionClass"] == body["predictionClass"]
    assert shown["packageUris"] == body["packageUris"]
    assert client.predict("scaler", "v1", [1, 2]) == {"predictions": [3, 6]}
    client.storage.upload(io.BytesIO(b"1\n2\noops\n"), ObjectUri("cpr", "in.txt"))
    spec = {
        "versionName": f"projects/{client.project}/models/scaler/versions/v1",
        "dataFormat": "JSON",
        "inputPaths": ["gs://cpr/in.txt"],
        "outputPath": "gs://cpr/out",
        "region": "us-central1",
    }
    client.jobs.create({"jobId": "scaled", "predictionInput": spec})
    while not client.jobs.read_logs("scaled", wait_s=5)["ended"]:
        pass
    shard = client.storage.stat(ObjectUri("cpr", "out/prediction.results-00000-of-00001"))
    assert b"".join(client.storage.read(shard)) == b"3.0\n6.0\n"
    wrong = {**body, "name": "v2", "predictionClass": "routine.code.Nobody"}
    with pytest.raises(EngineError, match="Nobody cannot be found"):
        client.operations.wait(client.versions("scaler").create(wrong))
