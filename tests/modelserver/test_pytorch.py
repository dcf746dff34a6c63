"""The PyTorch adapter in the runtime that has it: exported programs and TorchScript. Slow: builds that runtime."""

import json
from pathlib import Path

import pytest

from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served

from .conftest import Make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
RUNTIME = "pytorch-2.13"
INSTANCES = [[1, 2, 3, 4], [4.5, 3, 2, 1], [0, 0, 9, 0]]


@pytest.fixture(scope="module")
def made(make_models: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The interpreter, and the folder of models."""
    folder = tmp_path_factory.mktemp("models")
    return make_models(RUNTIME, "make_pytorch_models.py", folder), folder


class TestExportedProgram(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: tuple[Path, Path]) -> ExampleModel:
        return ExampleModel("PYTORCH", made[0], made[1] / "exported", INSTANCES, [1, 2, 3])


def serve(made: tuple[Path, Path], name: str, logs: Path) -> Served:
    return Served(ExampleModel("PYTORCH", made[0], made[1] / name, [], None).version(), logs)


def test_an_exported_program_tells_its_input(made: tuple[Path, Path], tmp_path: Path) -> None:
    served = serve(made, "exported", tmp_path)
    try:
        [signature] = served.report.signatures.values()
        assert signature["inputs"] == {"x": {"dtype": "float32", "shape": [None, 4]}}
        assert signature["outputs"] == {"output": {"dtype": "float32", "shape": [None, 3]}}
        assert "x in instance 0 has the shape (3), expected (4)" in served.error([1, 2, 3])
    finally:
        served.close()


def test_torchscript(made: tuple[Path, Path], tmp_path: Path) -> None:
    served = serve(made, "script", tmp_path)
    try:
        assert served.report.self_test == "inconclusive: an input of unknown shape"
        [scores] = served.predict(INSTANCES[0])
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert "mat1 and mat2 shapes cannot be multiplied (1x3 and 4x3)" in served.error([1, 2, 3])
    finally:
        served.close()


def test_torchscript_with_a_signature(made: tuple[Path, Path], tmp_path: Path) -> None:
    served = serve(made, "named", tmp_path)
    try:
        assert served.predict({"words": [1, 2], "weight": 0.5}) == [{"total": 1.5, "words": [1, 2]}]
        error = served.error({"words": [1, 2.5], "weight": 0.5})
        assert "Expected int64, got 2.5" in error
        assert "words of instance 0" in error
    finally:
        served.close()


def test_a_dictionary_needs_a_signature(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"signature\.json"):
        serve(made, "unnamed", tmp_path)


def test_integrated_gradients_are_complete(made: tuple[Path, Path], tmp_path: Path) -> None:
    python, directory = made
    config = json.dumps({"integratedGradientsAttribution": {"numIntegralSteps": 50}})
    example = ExampleModel("PYTORCH", python, directory / "exported", [], None)
    served = Served(example.version(explanation=config), tmp_path)
    try:
        for entry in served.explain([5.1, 3.5, 1.4, 0.2], [1, 2, 3, 4]):
            difference = entry["example_score"] - entry["baseline_score"]
            assert sum(entry["attributions"]["x"]) == pytest.approx(difference, rel=0.001)
            assert entry["approx_error"] < 0.001
    finally:
        served.close()
