"""User processes that are killed in the middle: what the failure policy says happens, and training goes on.

Slow because real processes are killed while they run.
"""

import json
import signal

import pytest

from enginehouse.testing.training import Trainings, kill_user_process

pytestmark = pytest.mark.slow

# Every replica notes that it began, and where the others are; the master goes on from its checkpoint.
TRAINER = """
import argparse, json, os, time, urllib.parse, urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--steps", type=int, default=60)
options = parser.parse_args()
config = json.loads(os.environ["TF_CONFIG"])
task = "%s-%d" % (config["task"]["type"], config["task"]["index"])
bucket, _, prefix = options.job_dir[5:].partition("/")
server = os.environ["STORAGE_EMULATOR_HOST"]


def name(key):
    return urllib.parse.quote(prefix + "/" + key, safe="")


def read(key, default):
    try:
        with urllib.request.urlopen("%s/storage/v1/b/%s/o/%s?alt=media" % (server, bucket, name(key))) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return default


def write(key, value):
    url = "%s/upload/storage/v1/b/%s/o?uploadType=media&name=%s" % (server, bucket, name(key))
    request = urllib.request.Request(url, json.dumps(value).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()


write(task, read(task, []) + [config["cluster"]])
if config["task"]["type"] != "chief":
    time.sleep(600)
begin = read("checkpoint", 0)
print("beginning at step %d" % begin)
for step in range(begin + 1, options.steps + 1):
    time.sleep(0.05)
    write("checkpoint", step)
write("result", {"steps": step, "began_at": begin})
"""

CLUSTER = {
    "scaleTier": "CUSTOM",
    "masterType": "standard",
    "workerType": "standard",
    "workerCount": "2",
    "parameterServerType": "standard",
    "parameterServerCount": "1",
    "runtimeVersion": "scikit-learn-1.9",
}


def begin(trainings: Trainings, job_id: str, **more: str) -> None:
    """Submit, and wait until all replicas are at work and the master has come some way."""
    trainings.submit(job_id, TRAINER, **{**CLUSTER, **more})
    for task in ("chief-0", "worker-0", "worker-1", "ps-0"):
        trainings.wait_for_object(job_id, task)
    while int(trainings.wait_for_object(job_id, "checkpoint")) < 5:
        pass


def runs(trainings: Trainings, job_id: str, task: str) -> list[dict[str, list[str]]]:
    """The cluster as a task saw it, each time that it began."""
    return list(json.loads(trainings.read(job_id, task) or "[]"))


@pytest.mark.parametrize(("role", "index"), [("worker", 1), ("ps", 0)])
def test_a_killed_helper_is_restarted_at_its_address_and_training_goes_on(
    trainings: Trainings, role: str, index: int
) -> None:
    job_id = f"killed_{role}"
    begin(trainings, job_id)
    kill_user_process(job_id, role, index)
    trainings.succeed(job_id)
    task = f"{role}-{index}"
    assert json.loads(trainings.read(job_id, "result") or "") == {"steps": 60, "began_at": 0}
    first, second = runs(trainings, job_id, task)
    assert first == second and len(first[role]) > index
    assert len(runs(trainings, job_id, "chief-0")) == 1
    (line,) = [line for line in trainings.log(job_id) if "is restarted (1 of 5)" in line]
    assert f"The replica {role} {index} exited with a non-zero status of 9(SIGKILL)" in line


def test_a_killed_master_resumes_from_its_checkpoint(trainings: Trainings) -> None:
    begin(trainings, "killed_master")
    kill_user_process("killed_master", "chief")
    trainings.succeed("killed_master")
    result = json.loads(trainings.read("killed_master", "result") or "")
    assert result["steps"] == 60 and result["began_at"] >= 5
    first, second = runs(trainings, "killed_master", "chief-0")
    assert first == second
    assert len(runs(trainings, "killed_master", "ps-0")) == 1


def test_a_crash_of_native_code_begins_the_whole_job_anew(trainings: Trainings) -> None:
    begin(trainings, "crashed")
    kill_user_process("crashed", "worker", 0, signal.SIGSEGV)
    trainings.succeed("crashed")
    assert json.loads(trainings.read("crashed", "result") or "")["began_at"] >= 5
    assert [len(runs(trainings, "crashed", task)) for task in ("chief-0", "worker-0", "worker-1", "ps-0")] == [2] * 4
    assert any("The whole job is begun anew (1 of 3)" in line for line in trainings.log("crashed"))


def test_what_user_code_decides_is_final(trainings: Trainings) -> None:
    source = TRAINER.replace(
        'if config["task"]["type"] != "chief":',
        'if task == "worker-0":\n    raise ValueError(7)\nif task != "chief-0":',
    )
    trainings.submit("raised", source, **CLUSTER)
    job = trainings.wait("raised")
    assert job["state"] == "FAILED"
    assert job["errorMessage"].startswith("The replica worker 0 exited with a non-zero status of 1.")
    assert "ValueError: 7" in job["errorMessage"]
    assert len(runs(trainings, "raised", "worker-0")) == 1


def test_a_job_gives_way_and_resumes(trainings: Trainings) -> None:
    """All places are taken by low-cost jobs; one that matters more comes."""
    for n in range(8):
        trainings.submit(f"cheap_{n}", TRAINER, "--steps", "40", scheduling={"strategy": "LOW_COST"})
    for n in range(8):
        trainings.wait_for_object(f"cheap_{n}", "checkpoint")
    trainings.submit("urgent", TRAINER, "--steps", "2", scheduling={"priority": 3})
    trainings.succeed("urgent")
    for n in range(8):
        trainings.succeed(f"cheap_{n}")
    gave_way = [n for n in range(8) if any("It gives way to urgent" in line for line in trainings.log(f"cheap_{n}"))]
    assert len(gave_way) == 1  # one is enough: whose training began last
    assert json.loads(trainings.read(f"cheap_{gave_way[0]}", "result") or "")["began_at"] > 0
