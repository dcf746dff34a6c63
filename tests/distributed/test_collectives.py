"""What frameworks without TF_CONFIG have of a job's cluster: XGBoost's collective, PyTorch, JAX."""

import json

import pytest

from enginehouse.testing.training import Trainings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS = {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": "1"}

SAVE = """
import argparse, json, os, urllib.parse, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
options = parser.parse_args()
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def save(result):
    bucket, _, prefix = options.job_dir[5:].partition("/")
    name = urllib.parse.quote(prefix + "/result.json", safe="")
    url = "%s/upload/storage/v1/b/%s/o?uploadType=media&name=%s" % (os.environ["STORAGE_EMULATOR_HOST"], bucket, name)
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(result).encode())).close()
"""

XGBOOST = (
    SAVE
    + """
import threading

import numpy as np
import xgboost as xgb
from xgboost import collective
from xgboost.tracker import RabitTracker

if rank == 0:
    tracker = RabitTracker(
        n_workers=world,
        host_ip=os.environ["DMLC_TRACKER_URI"],
        port=int(os.environ["DMLC_TRACKER_PORT"]),
        sortby="task",
    )
    tracker.start()
    threading.Thread(target=tracker.wait_for, daemon=True).start()
with collective.CommunicatorContext(
    dmlc_tracker_uri=os.environ["DMLC_TRACKER_URI"],
    dmlc_tracker_port=int(os.environ["DMLC_TRACKER_PORT"]),
    dmlc_task_id=os.environ["DMLC_TASK_ID"],
    dmlc_retry=20,
):
    random = np.random.RandomState(0)
    x = random.rand(1000, 3)
    y = (x[:, 0] > 0.5).astype(int)
    part = slice(collective.get_rank(), None, collective.get_world_size())  # each sees half of the rows
    booster = xgb.train({"objective": "binary:logistic", "seed": 1}, xgb.DMatrix(x[part], y[part]), 10)
    digests = collective.allreduce(np.array([len(booster.get_dump())]), collective.Op.SUM)
    right = float((np.round(booster.predict(xgb.DMatrix(x))) == y).mean())
    if collective.get_rank() == 0:
        save({"world": collective.get_world_size(), "trees": int(digests[0]), "accuracy": right})
"""
)


def test_xgboost(trainings: Trainings) -> None:
    trainings.submit("xgboost", XGBOOST, runtimeVersion="xgboost-3.2", **WORKERS)
    trainings.succeed("xgboost")
    result = json.loads(trainings.read("xgboost", "result.json") or "")
    assert (result["world"], result["trees"]) == (2, 20)
    assert result["accuracy"] > 0.95


PYTORCH = (
    SAVE
    + """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")  # by MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE
torch.manual_seed(rank)  # the first one's parameters count
model = DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
y = x @ torch.tensor([[2.0], [-1.0]]) + 0.5
for step in range(400):
    optimizer.zero_grad()
    loss = ((model(x[rank::world]) - y[rank::world]) ** 2).mean()  # each sees half of the rows
    loss.backward()
    optimizer.step()
weights = [torch.zeros(1, 2) for _ in range(world)]
dist.all_gather(weights, model.module.weight.data)
if rank == 0:
    save({"world": dist.get_world_size(), "weights": [each.flatten().tolist() for each in weights]})
dist.destroy_process_group()
"""
)


def test_pytorch_distributed_data_parallel(trainings: Trainings) -> None:
    trainings.submit("ddp", PYTORCH, runtimeVersion="pytorch-2.13", **WORKERS)
    trainings.succeed("ddp", timeout_s=800)
    result = json.loads(trainings.read("ddp", "result.json") or "")
    first, second = result["weights"]
    assert result["world"] == 2 and first == second
    assert first == pytest.approx([2.0, -1.0], abs=0.05)


JAX = (
    SAVE
    + """
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

jax.distributed.initialize(  # it knows JAX_COORDINATOR_ADDRESS by itself
    num_processes=int(os.environ["JAX_NUM_PROCESSES"]), process_id=int(os.environ["JAX_PROCESS_ID"])
)
x = np.random.RandomState(0).rand(200, 2)
y = x @ np.array([2.0, -1.0])
part = slice(jax.process_index(), None, jax.process_count())  # each sees half of the rows


@jax.jit
def gradient(weights):
    return jax.grad(lambda w: jnp.mean((x[part] @ w - y[part]) ** 2))(weights)


weights = jnp.zeros(2)
for step in range(150):
    weights = weights - 0.7 * multihost_utils.process_allgather(gradient(weights)).mean(axis=0)
everywhere = multihost_utils.process_allgather(weights)
if rank == 0:
    save({"processes": jax.process_count(), "devices": jax.device_count(), "weights": everywhere.tolist()})
"""
)


def test_jax_processes(trainings: Trainings) -> None:
    trainings.submit("jax", JAX, runtimeVersion="jax-0.10", **WORKERS)
    trainings.succeed("jax", timeout_s=800)
    result = json.loads(trainings.read("jax", "result.json") or "")
    first, second = result["weights"]
    assert (result["processes"], result["devices"]) == (2, 2) and first == second
    assert first == pytest.approx([2.0, -1.0], abs=0.05)
