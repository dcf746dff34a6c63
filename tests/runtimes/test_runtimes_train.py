"""A small module of each framework's own kind, as a job on an engine, in each runtime.

Slow because each runtime is built for real, in the cache that all tests of a session share, and imports a framework.
"""

from collections.abc import Iterator

import pytest

from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.replicas import wait_until
from enginehouse.testing.training import Trainings

FORKS = 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Runs on Python 2.7, too; trains y = 2 x by gradient descent.
TENSORFLOW_1 = """
import sys
import tensorflow as tf

x = tf.placeholder(tf.float32, [None])
w = tf.Variable(0.0)
loss = tf.reduce_mean(tf.square(w * x - 2 * x))
step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(100):
        session.run(step, {x: [1.0, 2.0]})
    print("tensorflow %s on python %d.%d learnt %.3f" % ((tf.VERSION,) + sys.version_info[:2] + (session.run(w),)))
"""

ESTIMATOR = """
import sys, tempfile
import tensorflow as tf

def data():
    return tf.data.Dataset.from_tensor_slices(({"x": [[1.0], [2.0]]}, [[2.0], [4.0]])).repeat().batch(2)

estimator = tf.estimator.LinearRegressor(
    [tf.feature_column.numeric_column("x")],
    model_dir=tempfile.mkdtemp(),
    optimizer=lambda: tf.keras.optimizers.legacy.SGD(0.1),
)
estimator.train(data, steps=1000)
learnt = next(estimator.predict(lambda: data().take(1)))["predictions"][0]
print("tensorflow %s on python %d.%d learnt %.3f" % ((tf.__version__,) + sys.version_info[:2] + (learnt,)))
"""

KERAS = """
import sys
import numpy as np
import tensorflow as tf

model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1, use_bias=False)])
model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss="mse")
x = np.array([[1.0], [2.0]])
model.fit(x, 2 * x, epochs=100, verbose=0)
learnt = float(model.get_weights()[0][0][0])
print("tensorflow %s on python %d.%d learnt %.3f" % ((tf.__version__,) + sys.version_info[:2] + (learnt,)))
"""

SCIKIT_LEARN = """
import sys
import sklearn
from sklearn.linear_model import LinearRegression

learnt = LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0]).coef_[0]
print("sklearn %s on python %d.%d learnt %.3f" % ((sklearn.__version__,) + sys.version_info[:2] + (learnt,)))
"""

XGBOOST = """
import sys
import numpy as np
import xgboost

data = xgboost.DMatrix(np.array([[1.0], [2.0]]), label=np.array([2.0, 4.0]))
booster = xgboost.train({"eta": 1.0, "lambda": 0.0, "min_child_weight": 0, "base_score": 0.0}, data, 3)
learnt = float(booster.predict(data)[0])
print("xgboost %s on python %d.%d learnt %.3f" % ((xgboost.__version__,) + sys.version_info[:2] + (learnt,)))
"""

PYTORCH = """
import sys
import torch

x, w = torch.tensor([1.0, 2.0]), torch.zeros((), requires_grad=True)
optimizer = torch.optim.SGD([w], lr=0.1)
for _ in range(100):
    optimizer.zero_grad()
    ((w * x - 2 * x) ** 2).mean().backward()
    optimizer.step()
print("torch %s on python %d.%d learnt %.3f" % ((torch.__version__,) + sys.version_info[:2] + (w.item(),)))
"""

JAX = """
import sys
import jax
import jax.numpy as jnp

x, w = jnp.array([1.0, 2.0]), 0.0
gradient = jax.jit(jax.grad(lambda w: jnp.mean((w * x - 2 * x) ** 2)))
for _ in range(100):
    w -= 0.1 * gradient(w)
print("jax %s on python %d.%d learnt %.3f" % ((jax.__version__,) + sys.version_info[:2] + (float(w),)))
"""


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    folder = tmp_path_factory.mktemp("runtimes-train")
    with EngineProcess(folder / "data", {"ENGINEHOUSE_WARM_POOL": "2"}) as engine:
        yield Trainings(lambda: engine.url, folder)


def train(trainings: Trainings, runtime: str, python: str | None, source: str) -> list[str]:
    """Run `source` in a runtime to its end. Returns the job's log."""
    name = f"{runtime}_{python or 'default'}".replace(".", "_").replace("-", "_")
    job_id = f"train_{name}_{abs(hash(source)) % 1000}"
    trainings.submit(job_id, source, runtimeVersion=runtime, **({"pythonVersion": python} if python else {}))
    trainings.succeed(job_id, timeout_s=900)
    return trainings.log(job_id)


CASES = [
    ("1.8", None, TENSORFLOW_1, "tensorflow 1.8.0 on python 2.7"),
    ("1.8", "3.5", TENSORFLOW_1, "tensorflow 1.8.0 on python 3.6"),
    ("1.15", "3.7", TENSORFLOW_1, "tensorflow 1.15.5 on python 3.7"),
    ("pytorch-2.13", None, PYTORCH, "torch 2.13.0+cpu on python 3.11"),
]
LONG_CASES = [
    ("1.13", "2.7", TENSORFLOW_1, "tensorflow 1.13.1 on python 2.7"),
    ("1.15", "2.7", TENSORFLOW_1, "tensorflow 1.15.0 on python 2.7"),
    ("1.4", "3.5", TENSORFLOW_1, "tensorflow 1.4.1 on python 3.6"),
    ("2.1", None, KERAS, "tensorflow 2.1.4 on python 3.7"),
    ("2.3", "3.8", KERAS, "tensorflow 2.3.4 on python 3.8"),
    ("2.11", None, ESTIMATOR, "tensorflow 2.11.0 on python 3.7"),
    ("2.15", None, ESTIMATOR, "tensorflow 2.15.1 on python 3.11"),
    ("2.21", None, KERAS, "tensorflow 2.21.0 on python 3.11"),
    ("scikit-learn-1.9", None, SCIKIT_LEARN, "sklearn 1.9.1 on python 3.11"),
    ("xgboost-3.2", None, XGBOOST, "xgboost 3.2.0 on python 3.11"),
    ("jax-0.10", None, JAX, "jax 0.10.2 on python 3.11"),
    ("1.8", "2.7", SCIKIT_LEARN, "sklearn 0.19.1 on python 2.7"),
    ("1.8", "3.5", XGBOOST, "xgboost 0.80 on python 3.6"),
]


@pytest.mark.parametrize(
    ("runtime", "python", "source", "told"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG_CASES)],
)
def test_trains(trainings: Trainings, runtime: str, python: str | None, source: str, told: str) -> None:
    log = train(trainings, runtime, python, source)
    assert f"master-replica-0: {told} learnt 2.000" in log
    version = told.rpartition(" ")[2]
    [chosen] = [line for line in log if f"Using runtime {runtime} with Python {version}: " in line]
    if python and python != version:
        assert f"Python {python} was asked for, and {version} is the nearest on this host" in chosen


@pytest.mark.long
@pytest.mark.parametrize(("runtime", "python", "source", "told"), [*CASES, *LONG_CASES])
def test_trains_in_forks(trainings: Trainings, runtime: str, python: str | None, source: str, told: str) -> None:
    """Each framework that is imported beforehand trains in twenty forks, two at a time; see `preload`."""
    version = told.rpartition(" ")[2]
    if not Catalogue.load().resolve(runtime, version).runtime.preload:
        pytest.skip(f"nothing is imported beforehand for runtime {runtime}")
    train(trainings, runtime, python, source + "\n# teaches\n")
    name = f"{runtime}_{version}".replace(".", "_").replace("-", "_")

    def forks() -> list[int]:
        pool = trainings.client.engine.status()["warmPool"]
        return [
            each["replicas"]
            for each in pool
            if (each["runtime"], each["python"], each["state"]) == (runtime, version, "ready")
        ]

    wait_until(forks, timeout_s=300, what="a waiting interpreter")
    before = sum(forks())
    for first in range(0, FORKS, 2):
        jobs = [f"fork_{name}_{number}" for number in (first, first + 1)]
        for job_id in jobs:
            more = {"pythonVersion": python} if python else {}
            trainings.submit(job_id, source, runtimeVersion=runtime, **more)
        for job_id in jobs:
            trainings.succeed(job_id)
            assert f"master-replica-0: {told} learnt 2.000" in trainings.log(job_id)
    assert sum(forks()) == before + FORKS
