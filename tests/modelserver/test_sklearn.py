"""The scikit-learn adapter, with this interpreter's scikit-learn; with a runtime's where pandas is needed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from enginehouse.serving.types import ModelLoadError
from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served

FEATURES, LABELS = load_iris(return_X_y=True)
FLOWERS = FEATURES[[0, 60, 120]].tolist()

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a model, or the bytes of a model file."""
    running = []

    def serve(model: Any, *, file_name: str = "model.joblib", python: Path = Path(sys.executable)) -> Served:
        directory = tmp_path / "model"
        directory.mkdir()
        if isinstance(model, bytes):
            (directory / file_name).write_bytes(model)
        else:
            joblib.dump(model, directory / file_name)
        running.append(Served(ExampleModel("SCIKIT_LEARN", python, directory, [], None).version(), tmp_path))
        return running[-1]

    yield serve
    for served in running:
        served.close()


class TestContract(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> ExampleModel:
        directory = tmp_path_factory.mktemp("model")
        joblib.dump(RandomForestClassifier(10, random_state=0).fit(FEATURES, LABELS), directory / "model.joblib")
        return ExampleModel("SCIKIT_LEARN", Path(sys.executable), directory, FLOWERS, [1, 2, 3])


@pytest.mark.parametrize("file_name", ["model.pkl", "model.joblib"])
def test_pickles_under_both_names(serve: Serve, file_name: str) -> None:
    model = LogisticRegression(max_iter=1000).fit(FEATURES, np.array(["a", "b", "c"])[LABELS])
    assert serve(pickle.dumps(model), file_name=file_name).predict(*FLOWERS) == ["a", "b", "c"]


def test_a_joblib_file_named_pkl(serve: Serve) -> None:
    assert serve(LinearRegression().fit(FEATURES, LABELS), file_name="model.pkl").predict([0, 0, 0, 0])


def test_a_pipeline_with_missing_values(serve: Serve) -> None:
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(FEATURES, LABELS)
    assert serve(pipeline).predict([5.1, None, 1.4, None], FLOWERS[2]) == [0, 2]


def test_text(serve: Serve) -> None:
    pipeline = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(["good fine", "bad awful"], ["up", "down"])
    served = serve(pipeline)
    assert served.report.self_test == "passed"
    assert served.predict("fine", "awful awful") == ["up", "down"]


def test_categories_that_zeros_are_not(serve: Serve) -> None:
    table = np.array([["red", "S"], ["blue", "L"], ["red", "L"]], dtype=object)
    served = serve(make_pipeline(OneHotEncoder(), LinearRegression()).fit(table, [1.0, 2.0, 3.0]))
    assert served.report.self_test.startswith("inconclusive: ")
    assert served.predict(["blue", "L"]) == pytest.approx([2.0])
    assert "Exception during sklearn prediction: Found unknown categories ['green']" in served.error(["green", "L"])


def test_several_outputs(serve: Serve) -> None:
    served = serve(LinearRegression().fit([[0.0], [1.0]], [[0.0, 1.0], [1.0, 3.0]]))
    [prediction] = served.predict([2])
    assert prediction == pytest.approx([2.0, 5.0])


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([[1, 2, 3]], "X has 3 features, but LogisticRegression is expecting 4 features as input."),
        ([[1, 2, 3, "a"]], "could not convert string to float: 'a'"),
        ([1, 2, 3, 4], "Expected 2D array, got 1D array instead"),
        ([[1, 2, 3, 4], [1]], "instance 1 has the shape (1,), but instance 0 has (4,)"),
        ([{"a": 1}], "trained without feature names"),
        ([[1, 2, 3, None]], "Input X contains NaN."),
    ],
)
def test_mistakes_are_named(serve: Serve, instances: list[Any], words: str) -> None:
    text = serve(LogisticRegression(max_iter=1000).fit(FEATURES, LABELS)).error(*instances)
    assert text.startswith("Prediction failed: ")
    assert words in text


def test_the_signature_name_is_not_for_scikit_learn(serve: Serve) -> None:
    assert serve(LinearRegression().fit([[0.0]], [1.0])).predict([1], signature_name="serving_default") == [1.0]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            pickle.dumps(3),
            r"^Failed to load model: Invalid model type detected: builtins\.int\. Please make sure the model file is "
            r"an exported sklearn model or pipeline\. \(Error code: 0\)$",
        ),
        (pickle.dumps(LogisticRegression()), r"NotFittedError: This LogisticRegression instance is not fitted yet"),
        (b"cno_such_module\nModel\n)R.", r"Could not load model\.joblib: No module named 'no_such_module'"),
        (b"", r"Unexpected error when loading the model: Could not load model\.joblib: "),
        (b"csys\nexit\n(I3\ntR.", r"Unexpected error when loading the model: 3 \(SystemExit\)"),
        (b"cos\nabort\n)R.", r"the model server was killed by SIGABRT\. Its last words: .*Aborted"),
    ],
)
def test_bad_models(serve: Serve, model: bytes, words: str) -> None:
    with pytest.raises(ModelLoadError, match=words):
        serve(model)


def test_another_version_of_scikit_learn_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LogisticRegression(max_iter=1000).fit(FEATURES, LABELS)
    monkeypatch.setattr("sklearn.base.__version__", "1.2.2")
    data, unfitted = pickle.dumps(model), pickle.dumps(LogisticRegression())
    monkeypatch.undo()
    served = serve(data)
    assert served.predict(FLOWERS[0]) == [0]
    [warning] = served.report.warnings
    assert warning.startswith(
        "InconsistentVersionWarning: Trying to unpickle estimator LogisticRegression from version"
    )
    (served.version.directory / "model.joblib").write_bytes(unfitted)
    with pytest.raises(ModelLoadError, match=r"not fitted yet.*InconsistentVersionWarning: .*1\.2\.2"):
        Served(served.version, served.version.directory)


@pytest.mark.slow
def test_models_of_data_frames(serve: Serve, runtime_python: Callable[[str], Path]) -> None:
    """Slow where the runtime is not built yet."""
    columns = ColumnTransformer(
        [("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"])], remainder="passthrough"
    )
    pipeline = make_pipeline(columns, LinearRegression())
    source = (
        "import joblib, pandas, sys; pipeline = joblib.load(sys.argv[1]); "
        "frame = pandas.DataFrame({'size': [1.0, 2.0, 3.0], 'colour': ['red', 'blue', 'red']}); "
        "joblib.dump(pipeline.fit(frame, [1.0, 12.0, 3.0]), sys.argv[1])"
    )
    python = runtime_python("scikit-learn-1.9")
    served = serve(_fitted_in(python, pipeline, source), python=python)
    assert served.report.self_test.startswith("inconclusive: ")  # zeros are no colour
    by_name = [{"colour": "blue", "size": 4}, {"size": 5, "colour": "red"}]
    assert served.predict(*by_name) == pytest.approx([14.0, 5.0])
    assert served.predict([4, "blue"]) == pytest.approx([14.0])
    assert "Input size was missing in at least one input instance." in served.error({"colour": "red"})


def _fitted_in(python: Path, model: Any, source: str) -> bytes:
    import subprocess
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".joblib") as file:
        joblib.dump(model, file.name)
        subprocess.run([str(python), "-c", source, file.name], check=True)
        return Path(file.name).read_bytes()
