"""kill -9 of the engine at random moments, while jobs run.

Slow because it is about real processes over a while: six jobs of some seconds, twenty engines.
"""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess, make_sdist, processes_of

KILLS = 20
LINES = 400
TRAINER = """\
import argparse, logging, os, pathlib, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--lines", type=int)
parser.add_argument("--seconds", type=float)
parser.add_argument("--runs")
parser.add_argument("--fail", action="store_true")
options = parser.parse_args()
with open(options.runs, "a") as file:
    file.write("%d\\n" % os.getpid())
logging.getLogger().setLevel(logging.INFO)
for i in range(options.lines):
    if i % 2:
        print("line %06d" % i)
    else:
        logging.info("line %06d", i)
    time.sleep(options.seconds / options.lines)
if options.fail:
    raise RuntimeError("failing on purpose")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_of_the_engine_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20260101)
    engine = EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CANCEL_GRACE_S": "2"})
    engine.start()
    try:
        jobs = submit_jobs(connect(url=engine.url, project="demo"), tmp_path)
        for number in range(KILLS):
            time.sleep(chance.uniform(0.0, 1.2))
            if number == KILLS // 2:
                connect(url=engine.url, project="demo").jobs.cancel("job_cancelled")
                time.sleep(chance.uniform(0.0, 0.05))
            engine.kill()
            engine.start()
        client = connect(url=engine.url, project="demo")
        ended = wait_for_all(client, jobs)
        assert {job_id: job["state"] for job_id, job in ended.items()} == {
            job_id: {"job_failing": "FAILED", "job_cancelled": "CANCELLED"}.get(job_id, "SUCCEEDED")
            for job_id in jobs
        }
        assert "RuntimeError: failing on purpose" in ended["job_failing"]["errorMessage"]
        for job_id in jobs:
            check_one_run(tmp_path, job_id)
            check_log(client, job_id, complete=job_id != "job_cancelled")
    finally:
        engine.stop()
    assert processes_of(tmp_path) == []


def submit_jobs(client: Client, folder: Path) -> list[str]:
    client.storage.create_bucket("bucket")
    package = folder / "trainer-0.1.tar.gz"
    package.write_bytes(make_sdist({"trainer/task.py": TRAINER}))
    from enginehouse.core.names import ObjectUri

    client.storage.upload_file(package, ObjectUri("bucket", package.name))
    jobs = [*(f"job_{i}" for i in range(4)), "job_failing", "job_cancelled"]
    for index, job_id in enumerate(jobs):
        seconds = 600 if job_id == "job_cancelled" else 12 + 3 * index
        lines = 20_000 if job_id == "job_cancelled" else LINES
        args = ["--lines", str(lines), "--seconds", str(seconds), "--runs", str(folder / f"{job_id}.runs")]
        client.jobs.create(
            {
                "jobId": job_id,
                "trainingInput": {
                    "runtimeVersion": "scikit-learn-1.9",
                    "pythonModule": "trainer.task",
                    "packageUris": [f"gs://bucket/{package.name}"],
                    "args": [*args, "--fail"] if job_id == "job_failing" else args,
                },
            }
        )
    return jobs


def wait_for_all(client: Client, jobs: list[str]) -> dict[str, dict[str, object]]:
    deadline = time.monotonic() + 120
    while True:
        found = {job_id: client.jobs.get(job_id) for job_id in jobs}
        if all(job.get("endTime") for job in found.values()):
            return found
        assert time.monotonic() < deadline, {job_id: job["state"] for job_id, job in found.items()}
        time.sleep(0.2)


def check_one_run(folder: Path, job_id: str) -> None:
    assert len((folder / f"{job_id}.runs").read_text().split()) == 1, f"{job_id}: user code ran more than once"


def check_log(client: Client, job_id: str, *, complete: bool) -> None:
    entries, cursor, ended = [], "", False
    while not ended:
        answer = client.jobs.read_logs(job_id, cursor)
        entries += answer["entries"]
        cursor, ended = answer["cursor"], answer["ended"]
    keys = [(entry["timestamp"], entry["insertId"]) for entry in entries]
    assert len(set(keys)) == len(keys)
    printed = [entry["message"] for entry in entries if entry["message"].startswith("line ")]
    count = LINES if complete else len(printed)
    assert printed == [f"line {i:06d}" for i in range(count)], f"{job_id}: lines are missing, doubled or out of order"
    service = Counter(entry["message"] for entry in entries if entry["taskName"] == "service")
    assert set(service.values()) == {1}, service
    assert service["Waiting for training program to start."] == 1
