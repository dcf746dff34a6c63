"""XGBoost's collective on a job's cluster."""

import json

import pytest

from enginehouse.testing.training import Trainings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS = {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": "1"}

SAVE = """
import argparse, json, os
from google.cloud import storage

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
options = parser.parse_args()
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def save(result):
    bucket, _, prefix = options.job_dir[5:].partition("/")
    storage.Client().bucket(bucket).blob(prefix + "/result.json").upload_from_string(json.dumps(result))
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
