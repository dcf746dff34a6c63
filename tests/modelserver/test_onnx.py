"""The ONNX adapter in the runtime that has it. Slow: builds that runtime."""

from pathlib import Path

import pytest

from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served

from .conftest import Make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
RUNTIME = "onnx-1.32"


@pytest.fixture(scope="module")
def made(make_models: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The interpreter, and the folder of models."""
    folder = tmp_path_factory.mktemp("models")
    return make_models(RUNTIME, "make_onnx_models.py", folder), folder


class TestContract(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, made: tuple[Path, Path]) -> ExampleModel:
        instances = [[1, 2, 3, 4], [4.5, 3, 2, 1], [0, 0, 9, 0]]
        return ExampleModel("ONNX", made[0], made[1] / "scores", instances, [1, 2, 3])


def test_text_and_several_inputs(made: tuple[Path, Path], tmp_path: Path) -> None:
    served = Served(ExampleModel("ONNX", made[0], made[1] / "words", [], None).version(), tmp_path)
    try:
        instances = [{"word": "grün", "number": 3}, {"word": "", "number": -4}]
        assert served.predict(*instances) == [{"same": "grün", "negative": -3}, {"same": "", "negative": 4}]
        assert "Input number was missing" in served.error({"word": "a"})
        assert "number of instance 0" in served.error({"word": "a", "number": 1.5})
    finally:
        served.close()
