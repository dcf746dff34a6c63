"""kill -9 of the engine and of trials at random moments of a tuning job.

Slow because it is about real processes over a while: eight trials, eight engines.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess, processes_of
from enginehouse.testing.replicas import LIGHT_RUNTIME, write_light_catalogue
from enginehouse.testing.training import Trainings, user_processes

TRIALS = 8
KILLS = 8
REPORTS = 40
TRAINER = """\
import argparse, os, time
from enginehouse import sdk

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--units", type=int)
arguments = parser.parse_args()
for step in range(1, REPORTS + 1):
    sdk.report("loss", arguments.units + step / 100, step=step)
    time.sleep(0.1)
""".replace("REPORTS", str(REPORTS))
SPEC = {
    "goal": "MINIMIZE",
    "hyperparameterMetricTag": "loss",
    "algorithm": "GRID_SEARCH",
    "maxTrials": TRIALS,
    "maxParallelTrials": 2,
    "params": [{"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": TRIALS}],
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_of_the_engine_and_of_trials_lose_and_repeat_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    catalogue = write_light_catalogue(tmp_path / "catalogue")
    engine = EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CATALOGUE_DIR": str(catalogue)}).start()
    trainings = Trainings(lambda: engine.url, tmp_path)
    killed = 0
    try:
        trainings.submit("tune", TRAINER, runtimeVersion=LIGHT_RUNTIME, hyperparameters=SPEC)
        for number in range(KILLS):
            time.sleep(chance.uniform(0.0, 1.0))
            if number % 2 == 0:
                killed += kill_a_trial()
            engine.kill()
            engine.start()
        output = trainings.succeed("tune")["trainingOutput"]
        log = trainings.log("tune")
    finally:
        engine.stop()
    units = [int(trial["hyperparameters"]["units"]) for trial in output["trials"]]
    assert units == list(range(1, TRIALS + 1)), "each suggestion once, the best first"
    assert [trial["trialId"] for trial in output["trials"]] == [str(number) for number in range(1, TRIALS + 1)]
    for trial in output["trials"]:
        points = [(int(point["trainingStep"]), point["objectiveValue"]) for point in trial["allMetrics"]]
        base = int(trial["hyperparameters"]["units"])
        assert points == [(step, base + step / 100) for step in range(1, REPORTS + 1)]
    ends = [line for line in log if " completed: loss " in line]
    assert len(ends) == len(set(ends)) == TRIALS
    assert 1 <= sum("It is restarted" in line for line in log) <= killed
    assert processes_of(tmp_path) == []


def kill_a_trial() -> int:
    """kill -9 of one trial that runs, once there is one; how many were met."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pid in user_processes("tune", "chief"):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
                return 1
        time.sleep(0.05)
    return 0
