"""How long the API takes with ten thousand jobs in the store: submit, describe, list; jobs that have ended, or wait.

A real engine, one client, one connection. "health" is the same way through HTTP with nothing behind it: the floor.

    python bench/job_queue.py [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from enginehouse.core.clock import SystemClock
from enginehouse.core.names import JobName, ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.metadata.records import NewEvent
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess, make_sdist, processes_of

PROJECT = "demo"
PAGE = 100
TRAINER = """\
import os, sys, time
while os.path.exists(sys.argv[1]):
    time.sleep(0.2)
"""
BARS_MS = {"submit": 30.0, "describe": 50.0, "list": 50.0}
"""99th percentiles, in milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 jobs and fewer calls, in under a minute")
    options = parser.parse_args()
    jobs, calls = (2_000, 200) if options.quick else (10_000, 1_000)
    bars: dict[str, dict[str, object]] = {}
    print(f"{jobs} jobs in the store, {calls} calls of each kind; milliseconds")
    print(f"{'':22}{'p50':>8}{'p99':>8}{'max':>8}")
    for state in ("SUCCEEDED", "QUEUED"):
        with tempfile.TemporaryDirectory() as folder:
            for name, times in measure(Path(folder), state, jobs, calls).items():
                p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
                title = f"{name}, {'ended' if state == 'SUCCEEDED' else 'queued'}"
                print(f"{title:22}{p50:8.2f}{p99:8.2f}{max(times):8.2f}")
                if name in BARS_MS:
                    value, bar = round(p99, 2), BARS_MS[name]
                    bars[f"{title}, p99 ms"] = {"value": value, "bar": bar, "met": value < bar}
    print(json.dumps({"bars": bars}))


def measure(folder: Path, state: str, jobs: int, calls: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by kind.

    Args:
        state: of the jobs that are in the store.
    """
    (folder / "go-on").touch()
    engine = EngineProcess(folder / "data", {"ENGINEHOUSE_MAX_RUNNING_JOBS": "1"}).start()
    try:
        client = connect(url=engine.url, project=PROJECT)
        body = prepare(client, folder)
        if state == "QUEUED":  # behind one that runs as long as this takes
            client.jobs.create({**body, "jobId": "blocker"})
        client.jobs.create({**body, "jobId": "pattern"})
        engine.kill()
        fill(folder / "data", state, jobs)
        engine.start()
        client = connect(url=engine.url, project=PROJECT)
        time.sleep(3)  # the engine's first look at the queue
        numbers = iter(range(10 * calls))
        kinds: dict[str, Callable[[], object]] = {
            "health": client.engine.healthy,
            "submit": lambda: client.jobs.create({**body, "jobId": f"new_{next(numbers)}"}),
            "describe": lambda: client.jobs.get(f"job_{next(numbers) % jobs}"),
            "list": lambda: list(itertools.islice(client.jobs.list(), PAGE)),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(calls):  # in turn, as they come in life
            for name, call in kinds.items():
                begin = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begin) * 1e3)
        return times
    finally:
        engine.kill()
        (folder / "go-on").unlink()
        while processes_of(folder):
            time.sleep(0.1)


def prepare(client: Client, folder: Path) -> dict[str, object]:
    """A bucket, a package, and the body of a job."""
    client.storage.create_bucket("bench-queue")
    package = folder / "trainer-0.1.tar.gz"
    package.write_bytes(make_sdist({"trainer/task.py": TRAINER}))
    client.storage.upload_file(package, ObjectUri("bench-queue", package.name))
    training_input = {
        "runtimeVersion": "scikit-learn-1.9",
        "pythonModule": "trainer.task",
        "packageUris": [f"gs://bench-queue/{package.name}"],
        "args": [str(folder / "go-on"), "--train-files", "gs://bench-queue/train.csv", "--train-steps", "1000"],
    }
    return {"trainingInput": training_input, "labels": {"owner": "bench"}}


def fill(data_dir: Path, state: str, jobs: int) -> None:
    """Put copies of the job `pattern` into the store of an engine that does not run."""
    settings = load_settings({"data_dir": data_dir}, environ={})
    store = SqlMetadataStore.open_sqlite(settings.metadata_path, SystemClock())
    pattern = store.get_job(JobName(PROJECT, "pattern"))
    events = [NewEvent("state", "created", data={"to": "QUEUED"}), *(NewEvent("log", f"line {n}") for n in range(8))]
    for number in range(jobs):
        name = JobName(PROJECT, f"job_{number}")
        ended = {"end_time_ns": pattern.create_time_ns + 1} if state != "QUEUED" else {}
        store.create_job(replace(pattern, name=name, state=state, **ended), events)
    store.close()


if __name__ == "__main__":
    main()
