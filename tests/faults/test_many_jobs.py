"""Two hundred jobs at once from four projects with quotas, some of several replicas: what was started when.

Slow because two hundred real jobs run. What is checked are the events that the engine has recorded.
"""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from enginehouse.core.clock import SystemClock
from enginehouse.core.names import JobName
from enginehouse.core.settings import load_settings
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.sdk.client import connect
from enginehouse.testing.engine import EngineProcess, processes_of
from enginehouse.testing.training import Trainings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

JOBS = 200
PROJECTS = ("ada", "ben", "cleo", "dan")
CAPACITY = {"jobs": 6, "cpus": 32, "gpus": 1}
QUOTAS = {"ada": {"jobs": 2}, "ben": {"cpus": 8}, "cleo": {"jobs": 3, "cpus": 12}}
SETTINGS = {
    "ENGINEHOUSE_MAX_RUNNING_JOBS": str(CAPACITY["jobs"]),
    "ENGINEHOUSE_CPUS": str(CAPACITY["cpus"]),
    "ENGINEHOUSE_GPUS": str(CAPACITY["gpus"]),
    "ENGINEHOUSE_QUOTAS": "ada=jobs:2 ben=cpus:8 cleo=jobs:3,cpus:12",
}
CLUSTERS = {
    "alone": {"masterType": "standard"},
    "pair": {"masterType": "standard", "workerType": "standard", "workerCount": "1"},
    "four": {"masterType": "standard", "workerType": "standard", "workerCount": "3"},
    "gpu": {"masterType": "standard_gpu"},
}
REPLICAS = {"alone": 1, "pair": 2, "four": 4, "gpu": 1}
DEMANDS = {
    "alone": {"jobs": 1, "cpus": 4},
    "pair": {"jobs": 1, "cpus": 8},
    "four": {"jobs": 1, "cpus": 16},
    "gpu": {"jobs": 1, "cpus": 8, "gpus": 1},
}

_SMALL = ("alone",) * 6 + ("pair",) * 2
KINDS_OF = {"ada": (*_SMALL, "four"), "ben": _SMALL, "cleo": _SMALL, "dan": (*_SMALL, "four", "gpu", "gpu")}
"""What each project submits: all of it fits into its quota."""

WAIT_FOR_GO = """
import os, time, urllib.request
url = os.environ["STORAGE_EMULATOR_HOST"] + "/storage/v1/b/trainings/o/go"
while True:
    try:
        urllib.request.urlopen(url).close()
        break
    except urllib.error.HTTPError:
        time.sleep(0.1)
"""


@dataclass(frozen=True)
class Run:
    """What became of a job. Times in nanoseconds: when it left the queue, and when it ended."""

    name: JobName
    rank: tuple[int, int]
    demand: dict[str, int]
    started_ns: int
    ended_ns: int

    def is_running(self, time_ns: int) -> bool:
        return self.started_ns < time_ns <= self.ended_ns


def test_order_quotas_and_gangs_hold(tmp_path: Path) -> None:
    chance = random.Random(4)
    engine = EngineProcess(tmp_path / "data", SETTINGS).start()
    kinds: dict[JobName, str] = {}
    ranks: dict[JobName, tuple[int, int]] = {}
    try:
        gate = Trainings(lambda: engine.url, tmp_path, project="gate")
        gate.submit("gate", WAIT_FOR_GO, scaleTier="STANDARD_1")  # takes the whole engine
        gate.wait_until("gate", lambda job: job["state"] == "RUNNING")
        package = gate.upload({"trainer/task.py": "import sys, time\ntime.sleep(float(sys.argv[1]))\n"})
        clients = {project: connect(url=engine.url, project=project) for project in PROJECTS}
        for number in range(JOBS):
            name = JobName(PROJECTS[number % 4], f"job_{number}")
            kinds[name] = chance.choice(KINDS_OF[name.project])
            ranks[name] = (-chance.randrange(4), number)
            training_input = {
                "runtimeVersion": "scikit-learn-1.9",
                "pythonModule": "trainer.task",
                "packageUris": [package],
                "scaleTier": "CUSTOM",
                "args": ["2" if kinds[name] == "gpu" else "0"],  # long enough to be passed meanwhile
                "scheduling": {"priority": -ranks[name][0]},
                **CLUSTERS[kinds[name]],
            }
            clients[name.project].jobs.create({"jobId": name.job_id, "trainingInput": training_input})
        gate.put("go", "")
        for name in kinds:
            job = Trainings.follow(clients[name.project], name.job_id)
            assert job["state"] == "SUCCEEDED", job
    finally:
        engine.stop()
    assert processes_of(tmp_path) == []
    check_order_and_limits(recorded(tmp_path / "data", ranks, kinds))
    for name, kind in kinds.items():
        directories = list((tmp_path / "data" / "jobs" / name.project / name.job_id).iterdir())
        assert len(directories) == REPLICAS[kind], name


def recorded(data_dir: Path, ranks: dict[JobName, tuple[int, int]], kinds: dict[JobName, str]) -> list[Run]:
    """The runs of all jobs by the engine's own events."""
    settings = load_settings({"data_dir": data_dir}, environ={})
    store = SqlMetadataStore.open_sqlite(settings.metadata_path, SystemClock())
    runs = []
    for name, rank in ranks.items():
        at = {event.data["to"]: event.timestamp_ns for event in store.events(str(name), kinds=["state"])}
        assert list(at) == ["QUEUED", "PREPARING", "RUNNING", "SUCCEEDED"], name
        runs.append(Run(name, rank, DEMANDS[kinds[name]], at["PREPARING"], at["SUCCEEDED"]))
    store.close()
    return runs


def check_order_and_limits(runs: list[Run]) -> None:
    """At each start: nothing was exceeded, and who was passed had to wait and was not delayed."""
    passed = 0
    for run in runs:
        beside = [other for other in runs if other.is_running(run.started_ns) and other is not run]
        of_project = [other for other in beside if other.name.project == run.name.project]
        assert not lacking(run, beside, CAPACITY), run
        assert not lacking(run, of_project, QUOTAS.get(run.name.project, {})), run
        ahead = sorted(
            (other for other in runs if other.started_ns > run.started_ns and other.rank < run.rank),
            key=lambda other: other.rank,
        )
        kept_by_quota: dict[str, Run] = {}
        for other in ahead:
            project = other.name.project
            mine = [each for each in beside if each.name.project == project]
            if lacking(other, mine, QUOTAS.get(project, {})):
                kept_by_quota.setdefault(project, other)
                continue
            if project in kept_by_quota and lacking(other, [*mine, kept_by_quota[project]], QUOTAS[project]):
                continue  # it would delay the first of its project
            # The first that only waits for room: it has none, and `run` leaves it what it needs.
            assert lacking(other, beside, CAPACITY), (run, other)
            assert not lacking(run, [*beside, other], CAPACITY), (run, other)
            passed += 1
            break
    assert passed > 0, "no job has passed another: the test has tested nothing"


def lacking(run: Run, beside: list[Run], limits: dict[str, int]) -> list[str]:
    """The dimensions in which there is no room for `run` beside others."""
    used: Counter[str] = Counter()
    for other in beside:
        used.update(other.demand)
    needed = ((each, run.demand.get(each, 0), limit) for each, limit in limits.items())
    return [each for each, amount, limit in needed if amount and used[each] + amount > limit]
