"""Explanations of SavedModels in a real runtime. Slow: TensorFlow starts for seconds."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import ExampleModel, Served

pytestmark = pytest.mark.slow

GRADIENTS = json.dumps({"integratedGradientsAttribution": {"numIntegralSteps": 20}})
SHAPLEY = json.dumps({"sampledShapleyAttribution": {"numPaths": 20}})
XRAI = json.dumps({"xraiAttribution": {}})
Start = Callable[[str, str], Served]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_models: Callable[..., Path]) -> tuple[Path, Path]:
    """The interpreter and the directory with the models."""
    directory = tmp_path_factory.mktemp("explained")
    return make_models("2.21", "make_explained_models.py", directory), directory


@pytest.fixture(scope="module")
def start(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Serve one of the models with a method."""
    python, directory = models
    running: list[Served] = []

    def start(name: str, explanation: str) -> Served:
        example = ExampleModel("TENSORFLOW", python, directory / name, [], None)
        running.append(Served(example.version(explanation=explanation), tmp_path_factory.mktemp("logs")))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.mark.parametrize("explanation", [GRADIENTS, SHAPLEY])
def test_a_linear_model_by_its_weights(start: Start, explanation: str) -> None:
    served = start("linear", explanation)
    first, second = served.explain(
        {"a": 2, "b": [1], "c": [4, -1], "text": "four"}, {"a": 0, "b": [0.5], "c": [0, 0], "text": ""}
    )
    texts = {"text": 4.0} if explanation is SHAPLEY else {}
    expected = {"a": 6.0, "b": [-2.0], "c": [2.0, -4.0], **texts}
    assert first["attributions"].keys() == expected.keys()
    for name, values in expected.items():
        assert first["attributions"][name] == pytest.approx(values)
    assert second["attributions"]["b"] == pytest.approx([-1.0])
    assert first["example_score"] == pytest.approx(6.0)
    # Gradients leave the text as it is.
    assert first["baseline_score"] == pytest.approx(0.0 if texts else 4.0)
    assert (first["output_name"], first["label_index"]) == ("y", 0)


def test_a_keras_network_is_complete(start: Start) -> None:
    served = start("network", GRADIENTS)
    for entry in served.explain([5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2]):
        difference = entry["example_score"] - entry["baseline_score"]
        assert sum(entry["attributions"]["x"]) == pytest.approx(difference, rel=0.02)
        assert entry["approx_error"] < 0.02


def test_pixels_of_a_file(start: Start, models: tuple[Path, Path]) -> None:
    image = {"b64": base64.b64encode((models[1] / "image.png").read_bytes()).decode()}
    served = start("raw_picture", GRADIENTS)
    assert served.predict(image)[0][1] == pytest.approx(250 / 255, rel=1e-3)
    [entry] = served.explain(image)
    attributions = np.array(entry["attributions"]["pixels"])
    assert entry["label_name"] == "red"
    assert attributions[:16, :16, 0] == pytest.approx(np.full((16, 16), 250 / 255 / 256), rel=1e-3)
    assert np.abs(attributions[..., 1:]).max() == np.abs(attributions[16:]).max() == 0


def test_xrai_draws_the_region(start: Start, models: tuple[Path, Path]) -> None:
    image = {"b64": base64.b64encode((models[1] / "image.png").read_bytes()).decode()}
    [entry] = start("picture", XRAI).explain(image)
    picture = base64.b64decode(entry["attributions"]["pixels"]["b64_jpeg"])
    assert picture.startswith(b"\xff\xd8")
    assert entry["approx_error"] < 0.001
    [entry] = start("raw_picture", XRAI).explain(image)
    heat = np.array(entry["attributions"]["pixels"])
    assert heat.shape == (32, 32)
    assert heat[:16, :16].min() > 2 * heat[22:26, 22:26].max()


def test_an_embedding_of_tensorflow_1(start: Start) -> None:
    [entry] = start("text", GRADIENTS).explain({"words": ["good", "bad", "?"], "size": 3})
    assert entry["attributions"]["words"] == pytest.approx([2.0, -4.0, 0.0])
    assert entry["attributions"]["size"] == pytest.approx(20.0)
    assert (entry["example_score"], entry["baseline_score"]) == (28.0, 10.0)


def test_an_unknown_tensor_fails_the_version(start: Start, models: tuple[Path, Path]) -> None:
    told = {"inputs": {"c": {"input_tensor_name": "nowhere:0"}, "d": {"input_tensor_name": "nothing:0"}}}
    (models[1] / "linear" / "explanation_metadata.json").write_text(json.dumps(told))
    with pytest.raises(ModelLoadError, match="names the input d"):
        start("linear", GRADIENTS)
