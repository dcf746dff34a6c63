"""The warm pool of a whole engine: shown, used, and gone with it, however it goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.replica.processes import process_info
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.replicas import LIGHT_RUNTIME, wait_until
from enginehouse.testing.training import Trainings

CODE = """
import sys, time
print("decimal was there" if "decimal" in sys.modules else "decimal was not there")
time.sleep(float(sys.argv[sys.argv.index("--sleep") + 1]))
"""
TENSORFLOW = """
import sys
there = "tensorflow" in sys.modules
import tensorflow as tf

x, w = tf.placeholder(tf.float32, [None]), tf.Variable(0.0)
step = tf.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.square(w * x - 2 * x)))
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(100):
        session.run(step, {x: [1.0, 2.0]})
    print("learnt %.3f, tensorflow %s there" % (session.run(w), "was" if there else "was not"))
with tf.gfile.Open(sys.argv[-1] + "/done", "w") as file:
    file.write("yes")
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_WARM_POOL": "2"}) as engine:
        yield engine


@pytest.fixture
def trainings(engine: EngineProcess, tmp_path: Path) -> Trainings:
    return Trainings(lambda: engine.url, tmp_path)


def run(trainings: Trainings, job_id: str, sleep_s: float = 0.0, runtime: str = LIGHT_RUNTIME) -> str:
    """Submit, and if it sleeps only until it runs. Its word on what was there already."""
    trainings.submit(job_id, CODE, "--sleep", str(sleep_s), runtimeVersion=runtime)
    if sleep_s:
        wait_until(lambda: any(": decimal " in line for line in trainings.log(job_id)), what="its first line")
    else:
        trainings.succeed(job_id)
    return next(line for line in trainings.log(job_id) if ": decimal " in line).partition(": ")[2]


def wait_until_ready(trainings: Trainings) -> None:
    wait_until(
        lambda: any(each["state"] == "ready" for each in trainings.client.engine.status()["warmPool"]),
        timeout_s=120,
        what="a waiting interpreter",
    )


def waiting() -> list[int]:
    """Processes of interpreters that wait."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        info = process_info(int(entry.name)) if b"replica/zygote.py" in command else None
        if info is not None and info.alive and f"runtime {LIGHT_RUNTIME}".encode() in command:
            found.append(int(entry.name))
    return found


def test_pool_of_an_engine(engine: EngineProcess, trainings: Trainings) -> None:
    assert run(trainings, "first") == "decimal was not there"
    run(trainings, "second")  # the first may have found the runtime still to be built
    wait_until_ready(trainings)
    assert run(trainings, "third") == "decimal was there"
    (shown,) = trainings.client.engine.status()["warmPool"]
    assert (shown["runtime"], shown["modules"]) == (LIGHT_RUNTIME, ["decimal"]) and shown["replicas"] >= 1
    before = waiting()
    assert before
    assert run(trainings, "survivor", sleep_s=4) == "decimal was there"
    engine.kill()
    wait_until(lambda: not set(before) & set(waiting()), what="the end of what waits")
    engine.start()
    trainings.succeed("survivor")
    engine.stop()
    assert not set(waiting()) - set(before)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tensorflow_trains_in_a_fork(trainings: Trainings) -> None:
    trainings.submit("teaches", TENSORFLOW, runtimeVersion="1.8", pythonVersion="2.7")
    trainings.succeed("teaches", timeout_s=600)
    assert any("learnt 2.000, tensorflow was not there" in line for line in trainings.log("teaches"))
    wait_until_ready(trainings)
    trainings.submit("forked", TENSORFLOW, runtimeVersion="1.8", pythonVersion="2.7")
    trainings.succeed("forked")
    assert any("learnt 2.000, tensorflow was there" in line for line in trainings.log("forked"))
    assert trainings.read("forked", "done") == "yes"
