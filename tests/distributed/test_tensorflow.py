"""TensorFlow's own strategies on a job's cluster, in loops of one's own: Keras 3 knows neither of them.

Slow because several TensorFlow processes train; builds the runtime where it is not.
"""

import json

import pytest

from enginehouse.testing.training import Trainings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATA = """
import argparse, json, os

import numpy as np
import tensorflow as tf

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
options = parser.parse_args()
task = json.loads(os.environ["TF_CONFIG"])["task"]
x = np.random.RandomState(0).rand(512, 2).astype("float32")
y = (x @ np.array([[2.0], [-1.0]], "float32") + 0.5).astype("float32")


def save(weights, **more):
    with tf.io.gfile.GFile(options.job_dir + "/result.json", "w") as file:
        json.dump({"weights": [float(each) for each in np.concatenate([np.ravel(w) for w in weights])], **more}, file)
"""

MULTI_WORKER = (
    DATA
    + """
strategy = tf.distribute.MultiWorkerMirroredStrategy()
dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(512, seed=1).repeat().batch(64)
with strategy.scope():
    weights = tf.Variable(tf.zeros((2, 1)))
    bias = tf.Variable(tf.zeros((1,)))


def update(batch):
    inputs, wanted = batch
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((inputs @ weights + bias - wanted) ** 2)
    gradients = tf.distribute.get_replica_context().all_reduce("mean", tape.gradient(loss, (weights, bias)))
    for variable, gradient in zip((weights, bias), gradients):
        variable.assign_sub(0.5 * gradient)


@tf.function
def step(iterator):
    strategy.run(update, args=(next(iterator),))


iterator = iter(strategy.experimental_distribute_dataset(dataset))
for _ in range(160):
    step(iterator)
if task["type"] == "chief":
    save([weights.numpy(), bias.numpy()], replicas=strategy.num_replicas_in_sync)
"""
)

PARAMETER_SERVER = (
    DATA
    + """
resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
if task["type"] in ("worker", "ps"):
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=task["type"], task_index=task["index"], protocol="grpc", start=True
    )
    server.join()
strategy = tf.distribute.ParameterServerStrategy(resolver)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
with strategy.scope():
    weights = tf.Variable(tf.zeros((2, 1)))
    bias = tf.Variable(tf.zeros((1,)))


@tf.function
def step(iterator):
    inputs, wanted = next(iterator)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((inputs @ weights + bias - wanted) ** 2)
    for variable, gradient in zip((weights, bias), tape.gradient(loss, (weights, bias))):
        variable.assign_sub(0.2 * gradient)
    return loss


def dataset():
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(512, seed=1).repeat().batch(64)


iterator = iter(coordinator.create_per_worker_dataset(dataset))
for _ in range(300):
    coordinator.schedule(step, args=(iterator,))
coordinator.join()
save([weights.numpy(), bias.numpy()], workers=len(resolver.cluster_spec().job_tasks("worker")))
"""
)


def result(trainings: Trainings, job_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(trainings.read(job_id, "result.json") or "{}")
    assert found.pop("weights") == pytest.approx([2.0, -1.0, 0.5], abs=0.05)
    return found


def test_multi_worker_mirrored_strategy(trainings: Trainings) -> None:
    cluster = {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": "1"}
    trainings.submit("mirrored", MULTI_WORKER, runtimeVersion="2.21", **cluster)
    trainings.succeed("mirrored", timeout_s=600)
    assert result(trainings, "mirrored") == {"replicas": 2}
    assert any("share the" in line for line in trainings.log("mirrored"))


def test_parameter_server_strategy(trainings: Trainings) -> None:
    cluster = {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": "2"}
    parameter_servers = {"parameterServerType": "standard", "parameterServerCount": "1"}
    trainings.submit("servers", PARAMETER_SERVER, runtimeVersion="2.21", **cluster, **parameter_servers)
    trainings.succeed("servers", timeout_s=600)
    assert result(trainings, "servers") == {"workers": 2}
