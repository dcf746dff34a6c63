"""kill -9 of the engine in each phase of a distributed job: queued, preparing, starting, running, stopping.

Slow because thirty engines die, each in another moment of a real job's life.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginehouse.testing.engine import EngineProcess, processes_of
from enginehouse.testing.training import Trainings

KILLS = 30
PHASES = ("queued", "preparing", "starting", "running", "stopping", "cancelling")
CLUSTER = {
    "scaleTier": "CUSTOM",
    "masterType": "standard",
    "workerType": "standard",
    "workerCount": "1",
    "parameterServerType": "standard",
    "parameterServerCount": "1",
}

# Leaves a file each time that it begins; the master ends after a while, the others never do by themselves.
TRAINER = """
import json, os, sys, time
task = json.loads(os.environ["TF_CONFIG"])["task"]
open("%s.%s.%d.%d" % (sys.argv[1], task["type"], task["index"], os.getpid()), "x").close()
time.sleep(float(sys.argv[2]) if task["type"] == "chief" else 600)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_kills_in_every_phase(tmp_path: Path) -> None:
    chance = random.Random(7)
    engine = EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CANCEL_GRACE_S": "1"}).start()
    trainings = Trainings(lambda: engine.url, tmp_path)
    try:
        for number in range(KILLS):
            phase, job_id = PHASES[number % len(PHASES)], f"job_{number}"
            seconds = 600.0 if phase == "cancelling" else 0.5
            trainings.submit(job_id, TRAINER, str(tmp_path / job_id), str(seconds), **CLUSTER)
            if phase == "cancelling":
                trainings.wait_until(job_id, lambda job: job["state"] == "RUNNING")
                trainings.client.jobs.cancel(job_id)
            else:
                wait_for_phase(trainings, tmp_path, job_id, phase)
            time.sleep(chance.uniform(0, 0.05))
            engine.kill()
            time.sleep(chance.uniform(0, 0.5))  # replicas go on, or end, without an engine
            engine.start()
            job = trainings.wait(job_id)
            assert job["state"] == ("CANCELLED" if phase == "cancelling" else "SUCCEEDED"), (phase, job)
            begun = Counter(path.stem for path in tmp_path.glob(f"{job_id}.*"))
            assert set(begun.values()) <= {1}, f"{phase}: begun more than once: {begun}"
            assert phase == "cancelling" or f"{job_id}.chief.0" in begun
            service = [line for line in trainings.log(job_id) if line.startswith("service: ")]
            assert len(service) == len(set(service)), service
    finally:
        engine.stop()
    assert processes_of(tmp_path) == []


def wait_for_phase(trainings: Trainings, folder: Path, job_id: str, phase: str) -> None:
    """Return in the middle of a phase; a short one may be over by then, which is a moment as good as another."""
    reached: dict[str, Callable[[dict[str, Any]], bool]] = {
        "queued": lambda job: True,
        "preparing": lambda job: job["state"] != "QUEUED",
        "starting": lambda job: any(folder.glob(f"{job_id}.ps.0.*")),
        "running": lambda job: job["state"] == "RUNNING",
        "stopping": lambda job: any("Task completed successfully" in line for line in trainings.log(job_id)),
    }
    trainings.wait_until(job_id, lambda job: reached[phase](job) or "endTime" in job)
