"""The runtimes that users get: built from their locks (once, into the cache of this user), and a trainer on each.

Slow: TensorFlow alone is 1.8 GiB on disk, and importing it takes seconds.
"""

from pathlib import Path

import pytest

from enginehouse.backends.local import LocalBackend
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.testing.packages import make_sdist
from enginehouse.testing.replicas import ReplicaFactory, messages, wait_for_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

COMMON = """
import gcsfs, google.cloud.storage, joblib, numpy, orjson, pandas, setuptools, sys, wheel
print("numpy", numpy.__version__)
"""

TRAINERS = {
    "2.21": """
import keras, sklearn, tensorflow as tf, xgboost
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(numpy.random.rand(40, 4), numpy.arange(40) % 3, epochs=2, verbose=2)
model.export("export")
print("frameworks", tf.__version__, sklearn.__version__, xgboost.__version__, keras.__version__.split(".")[0])
""",
    "scikit-learn-1.9": """
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
joblib.dump(model, "model.joblib")
assert joblib.load("model.joblib").predict([[5.1, 3.5, 1.4, 0.2]])[0] == 0
print("frameworks", sklearn.__version__)
""",
    "xgboost-3.2": """
import sklearn, xgboost
x = numpy.random.rand(60, 4)
booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, x[:, 0] > 0.5), 5)
booster.save_model("model.json")
print("frameworks", xgboost.__version__, sklearn.__version__)
""",
}
FRAMEWORKS = {"2.21": "2.21.0 1.9.1 3.2.0 3", "scikit-learn-1.9": "1.9.1", "xgboost-3.2": "3.2.0 1.9.1"}

COMPUTED_SETUP = """
import os
from setuptools import find_packages, setup
here = os.path.dirname(os.path.abspath(__file__))
setup(name="trainer", version="0." + str(len("x")), packages=find_packages(), install_requires=["numpy>=1.20"],
      entry_points={"console_scripts": ["tell = trainer.task:tell"]})
"""


@pytest.fixture
def replicas(tmp_path: Path) -> ReplicaFactory:
    return ReplicaFactory(tmp_path / "packages", load_settings().runtimes_dir)


@pytest.mark.parametrize("name", TRAINERS)
def test_trainer_runs_on(name: str, replicas: ReplicaFactory, tmp_path: Path) -> None:
    backend = LocalBackend()
    backend.launch(tmp_path / "replica", replicas.spec(COMMON + TRAINERS[name], runtime_version=name))
    outcome = wait_for_end(backend, tmp_path / "replica", timeout_s=1000).outcome
    lines = messages(tmp_path / "replica")
    assert outcome is not None and outcome.succeeded, "\n".join(lines)
    assert f"frameworks {FRAMEWORKS[name]}" in lines and "numpy 2.4.6" in lines


def test_all_runtimes_are_tried() -> None:
    assert set(TRAINERS) <= set(Catalogue.load().names())


def test_setup_script_that_computes_is_run_by_the_runtimes_setuptools(
    replicas: ReplicaFactory, tmp_path: Path
) -> None:
    code = "import subprocess\n\ndef tell():\n    print('told')\n\nif __name__ == '__main__':\n"
    code += "    subprocess.check_call('tell')\n"
    package = make_sdist(tmp_path, {"trainer/task.py": code}, setup=COMPUTED_SETUP)
    backend = LocalBackend()
    spec = replicas.spec(packages=[package], runtime_version="scikit-learn-1.9")
    backend.launch(tmp_path / "replica", spec)
    outcome = wait_for_end(backend, tmp_path / "replica", timeout_s=1000).outcome
    lines = messages(tmp_path / "replica")
    assert outcome is not None and outcome.succeeded, "\n".join(lines)
    assert "told" in lines


def test_failing_setup_script_is_told_in_its_own_words(replicas: ReplicaFactory, tmp_path: Path) -> None:
    package = make_sdist(tmp_path, {"trainer/task.py": ""}, setup="raise RuntimeError('set FOO first')")
    backend = LocalBackend()
    backend.launch(tmp_path / "replica", replicas.spec(packages=[package], runtime_version="scikit-learn-1.9"))
    outcome = wait_for_end(backend, tmp_path / "replica", timeout_s=1000).outcome
    assert outcome is not None and outcome.reason == "environment_failed"
    assert "Building trainer-0.1.tar.gz failed" in outcome.message
    assert "RuntimeError: set FOO first" in outcome.message
