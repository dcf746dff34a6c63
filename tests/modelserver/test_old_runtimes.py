"""Models of runtime 1.8, on its Pythons 2.7 and 3.6. Slow: builds these runtimes if need be and trains in them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from enginehouse.core.errors import Internal
from enginehouse.core.names import VersionName
from enginehouse.modelserver import CUSTOM, is_old
from enginehouse.serving.types import ModelLoadError, ServedVersion
from enginehouse.testing.adapters import AdapterContract, ExampleModel, Served

pytestmark = pytest.mark.slow

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.5, 2.8, 4.6, 1.5], [6.3, 3.3, 6.0, 2.5]]

Start = Callable[[str, str, str], Served]


@pytest.fixture(scope="session")
def old_models(
    tmp_path_factory: pytest.TempPathFactory, make_models: Callable[..., Path]
) -> Callable[..., ExampleModel]:
    """A model of runtime 1.8 by its Python, its framework and its directory's name."""
    made: dict[str, tuple[Path, Path]] = {}

    def example(python: str, framework: str, name: str, bad: object = None) -> ExampleModel:
        if python not in made:
            directory = tmp_path_factory.mktemp(f"py{python}-")
            made[python] = make_models("1.8", "make_old_models.py", directory, python), directory
        interpreter, directory = made[python]
        return ExampleModel(framework, interpreter, directory / name, FLOWERS, bad, in_worker=True)

    return example


class TestTensorFlow(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, old_models: Callable[..., ExampleModel]) -> ExampleModel:
        return old_models("2.7", "TENSORFLOW", "estimator", [1, 2, 3])


class TestSklearn(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, old_models: Callable[..., ExampleModel]) -> ExampleModel:
        return old_models("3.6", "SCIKIT_LEARN", "forest", [1, 2, 3])


class TestXgboost(AdapterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, old_models: Callable[..., ExampleModel]) -> ExampleModel:
        return old_models("2.7", "XGBOOST", "booster", [1, 2, 3])


@pytest.fixture(scope="module")
def start(old_models: Callable[..., ExampleModel], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Serve one of the models, once."""
    running: dict[tuple[str, str], Served] = {}

    def start(python: str, framework: str, name: str) -> Served:
        if (python, name) not in running:
            version = old_models(python, framework, name).version()
            running[python, name] = Served(version, tmp_path_factory.mktemp("logs"))
        return running[python, name]

    yield start
    for served in running.values():
        served.close()


both = pytest.mark.parametrize("python", ["2.7", "3.6"])


def test_which_pythons_are_old() -> None:
    assert [is_old(version) for version in ("2.7", "3.6", "3.9", "3.10", "3.13")] == [True, True, True, False, False]


@both
def test_an_estimator_without_a_default_signature(start: Start, python: str) -> None:
    served = start(python, "TENSORFLOW", "estimator")
    [flower] = served.predict(FLOWERS[0])
    assert flower["class_ids"] == [0] and len(flower["probabilities"]) == 3
    assert flower["classes"] == ["0"]
    assert served.report.signatures["predict"]["inputs"] == {"x": {"dtype": "float32", "shape": [None, 4]}}


@both
def test_text_bytes_and_numbers(start: Start, python: str) -> None:
    served = start(python, "TENSORFLOW", "graph")
    assert served.predict({"word": "é", "number": 1}, {"word": {"b64": "Yg=="}, "number": 2.5}) == [
        {"said": "é!", "raw_bytes": {"b64": "w6k="}, "n": 1.0},
        {"said": "b!", "raw_bytes": {"b64": "Yg=="}, "n": 2.5},
    ]
    assert served.predict(4, 9, signature_name="root") == [2.0, 3.0]
    assert "only positive numbers" in served.error(4, -1, signature_name="root")
    assert "Input number was missing" in served.error({"word": "a"})


@both
def test_warm_up_requests_are_run(start: Start, python: str) -> None:
    served = start(python, "TENSORFLOW", "graph")
    refused, incomplete = served.report.warnings[-2:]
    assert refused.startswith("warm-up request 2 failed: ") and "only positive numbers" in refused
    assert incomplete == (
        "warm-up request 3 failed: it has the inputs ['word'], the signature serving_default takes ['number', 'word']"
    )
    assert "2 warm-up requests were run." in served.pool.log_path("graph").read_text()


@both
def test_labels_are_text(start: Start, python: str) -> None:
    served = start(python, "SCIKIT_LEARN", "labels")
    assert served.predict(*FLOWERS) == ["setosa", "versicolor", "virginica"]
    assert served.report.signatures["predict"]["inputs"]["instances"]["shape"] == [None, 4]


@both
def test_text_for_a_pipeline(start: Start, python: str) -> None:
    assert start(python, "SCIKIT_LEARN", "text").predict("good", "very bad", "fine") == ["auf", "über", "auf"]


@both
def test_boosters_and_their_wrappers(start: Start, python: str) -> None:
    shares = start(python, "XGBOOST", "booster").predict(*FLOWERS)
    assert [max(range(3), key=row.__getitem__) for row in shares] == [0, 1, 2]
    assert start(python, "XGBOOST", "xgbmodel").predict(*FLOWERS) == [0, 1, 2]
    assert max(start(python, "XGBOOST", "booster").predict([5.1, None, 1.4, 0.2])[0]) > 0.4


def test_what_was_never_fitted_is_refused(old_models: Callable[..., ExampleModel], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"scikit-learn 0\.19\.1.*NotFittedError"):
        Served(old_models("3.6", "SCIKIT_LEARN", "not_fitted").version(), tmp_path)


def test_a_model_that_was_made_by_a_newer_python_is_refused_in_python_s_words(
    old_models: Callable[..., ExampleModel], tmp_path: Path
) -> None:
    old = old_models("2.7", "SCIKIT_LEARN", "forest")
    newer = old_models("3.6", "SCIKIT_LEARN", "forest")
    with pytest.raises(ModelLoadError, match=r"Could not load model\.joblib: .*\(ValueError\)"):
        Served(old.version(newer.directory), tmp_path)


def test_frameworks_that_came_later_are_refused(old_models: Callable[..., ExampleModel], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"PYTORCH is not served on Python 2\.7"):
        Served(old_models("2.7", "PYTORCH", "forest").version(), tmp_path)


ROUTINE = """
# -*- coding: utf-8 -*-
import ctypes, io, os, sys, time


class Routine(object):
    def __init__(self, word):
        self.word = word

    @classmethod
    def from_path(cls, directory):
        with io.open(os.path.join(directory, "word.txt"), encoding="utf-8") as file:
            return cls(file.read())

    def predict(self, instances, **kwargs):
        print(u"é".encode("utf-8") if sys.version_info[0] == 2 else u"é")
        if instances == ["crash"]:
            ctypes.string_at(0)
        if instances == ["pid"]:
            return [os.getpid(), os.getppid()]
        if instances == ["python"]:
            return [list(sys.version_info[:2])]
        return [{"text": self.word + instance["text"], "more": sorted(kwargs)} for instance in instances]
"""


@both
def test_a_custom_routine_and_its_crash(old_models: Callable[..., ExampleModel], tmp_path: Path, python: str) -> None:
    code, files = tmp_path / "code", tmp_path / "files"
    code.mkdir()
    files.mkdir()
    (code / "routines.py").write_text(ROUTINE)
    (files / "word.txt").write_text("ü")
    interpreter = old_models(python, "", "").python
    version = ServedVersion(
        VersionName("p", "m", "v"),
        "routine",
        files,
        CUSTOM + "routines.Routine",
        interpreter,
        (code,),
        in_worker=True,
    )
    served = Served(version, tmp_path)
    try:
        assert served.predict("python") == [[int(part) for part in python.split(".")]]
        assert served.predict({"text": "ß"}, shape=3) == [{"text": "üß", "more": ["shape"]}]
        assert "routines.Routine.predict raised KeyError" in served.error({})
        worker, host = served.predict("pid")
        assert served.pool.pids() == {"routine": host}
        with pytest.raises(Internal, match="was killed by SIGSEGV"):
            served.ask({"instances": ["crash"]})
        os.kill(served.predict("pid")[0], signal.SIGKILL)  # the worker: the server ends with it and is replaced
        assert served.predict({"text": "ß"})[0]["text"] == "üß"
        worker, host = served.predict("pid")
        os.kill(host, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=5)
        assert not psutil.pid_exists(worker)
        assert "é" in served.pool.log_path("routine").read_text()
    finally:
        served.close()
