"""The XGBoost adapter in a real runtime. Slow where the runtime is not built yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served, same

pytestmark = pytest.mark.slow

FLOWERS = load_iris(return_X_y=True)[0][[0, 60, 120]].tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_models: Callable[..., Path]) -> tuple[Path, Path]:
    """The interpreter and the directory with the models."""
    directory = tmp_path_factory.mktemp("xgboost")
    return make_models("xgboost-3.2", "make_xgboost_models.py", directory), directory


@pytest.fixture
def start(models: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    python, directory = models
    running = []

    def start(name: str) -> Served:
        example = ExampleModel("XGBOOST", python, directory / name, [], None)
        running.append(Served(example.version(), tmp_path))
        return running[-1]

    yield start
    for served in running:
        served.close()


class TestContract(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, models: tuple[Path, Path]) -> ExampleModel:
        python, directory = models
        return ExampleModel("XGBOOST", python, directory / "bst", FLOWERS, [1, 2, 3])


@pytest.mark.parametrize("name", ["bst", "json", "ubj", "json_as_bst", "joblib_booster", "pickled_booster", "named"])
def test_boosters_in_all_files(models: tuple[Path, Path], start: Callable[[str], Served], name: str) -> None:
    expected = np.load(models[1] / "expected.npy")[[0, 60, 120]].tolist()
    assert same(start(name).predict(*FLOWERS), expected)


def test_estimators_predict_classes(start: Callable[[str], Served]) -> None:
    assert start("classifier").predict(*FLOWERS) == [0, 1, 2]


def test_null_is_a_missing_value(start: Callable[[str], Served]) -> None:
    served = start("json")
    [[*probabilities]] = served.predict([5.1, None, None, 0.2])
    assert abs(sum(probabilities) - 1) < 1e-5


def test_features_by_name(start: Callable[[str], Served]) -> None:
    served = start("named")
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    by_name = [dict(reversed(list(zip(names, flower, strict=True)))) for flower in FLOWERS]
    assert served.predict(*by_name) == served.predict(*FLOWERS)
    assert served.report.signatures["predict"]["inputs"]["instances"]["features"] == names
    del by_name[1]["petal_width"]
    assert "Input petal_width was missing in at least one input instance." in served.error(*by_name)


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([[1, 2, 3]], "each instance must be a list of 4 numbers; the shape of the instances is (1, 3)."),
        ([1, 2, 3, 4], "each instance must be a list of 4 numbers"),
        ([[1, 2, 3, "a"]], "Could not initialize DMatrix from inputs: all values must be numbers"),
        ([[1, 2, 3, 4], [1, 2]], "instance 1 has the shape (2,)"),
        ([{"a": 1}], "without feature names"),
    ],
)
def test_mistakes_are_named(start: Callable[[str], Served], instances: list[object], words: str) -> None:
    assert words in start("json").error(*instances)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "dictionary",
            "Invalid model type detected: builtins.dict. Please make sure the model file is an exported xgb",
        ),
        ("unfitted", "need to call fit"),
    ],
)
def test_bad_models(start: Callable[[str], Served], name: str, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        start(name)
