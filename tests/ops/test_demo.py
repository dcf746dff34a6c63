"""The demo: what it leaves behind when it is interrupted (nothing), and one whole run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from enginehouse.ops.demo import Demo, DemoFailed, end_processes_of


def start(tmp_path: Path, **variables: str) -> subprocess.Popen[str]:
    """The demo with its folders below `tmp_path`, in a process group of its own, as a terminal would have it."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), **variables}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "enginehouse.ops.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        start_new_session=True,
    )


def processes_below(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def left_by_us(folder: Path) -> list[Path]:
    """Frameworks leave caches of their own there; these are ours, but for the locks that all engines share."""
    ours = [path for path in folder.iterdir() if path.name.startswith(("enginehouse", "mle"))]
    return [path for path in ours if path.name != "enginehouse-ports"]


def wait_for_line(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if wanted in line:
            return
    pytest.fail("the demo ended before: " + "".join(seen))


@pytest.mark.parametrize(
    ("line", "signal_all", "after_s"),
    [
        ("$ mle up", lambda pid: os.killpg(pid, signal.SIGINT), 0.3),
        ("$ mle storage mb", lambda pid: os.killpg(pid, signal.SIGINT), 0.3),
        ("$ mle storage mb", lambda pid: os.killpg(pid, signal.SIGINT), 0.01),  # while its Python starts
        ("$ mle init", lambda pid: os.kill(pid, signal.SIGTERM), 0.3),
    ],
)
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, line: str, signal_all: Callable[[int], None], after_s: float
) -> None:
    process = start(tmp_path)
    wait_for_line(process, line)
    time.sleep(after_s)  # into the middle of the command
    signal_all(process.pid)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "Traceback" not in out
    assert processes_below(tmp_path) == []
    assert left_by_us(tmp_path) == []


@pytest.mark.slow
def test_an_interrupt_during_the_training_leaves_nothing(tmp_path: Path) -> None:
    """Slow: the runtime is built where it is not."""
    process = start(tmp_path)
    wait_for_line(process, "Running command: python3 -m trainer.task")
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert processes_below(tmp_path) == []
    assert left_by_us(tmp_path) == []


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    """Slow: trains a TensorFlow model, and builds its runtime where it is not."""
    process = start(tmp_path, ENGINEHOUSE_URL="http://127.0.0.1:1")
    out, _ = process.communicate(timeout=560)
    assert process.returncode == 0, out
    accuracy = re.search(r"Accuracy on hold_out_test.csv: (\d\.\d+)", out)
    assert accuracy is not None
    assert float(accuracy.group(1)) >= 0.9
    table = out.partition("CLASS")[2].splitlines()[1:4]
    assert [row.split()[0] for row in table] == ["setosa", "versicolor", "virginica"]
    trials = out.partition("TRIAL_ID")[2].splitlines()[1:5]
    assert sorted(row.split()[0] for row in trials) == ["1", "2", "3", "4"]
    assert "30 predictions and 0 errors in 1 shards" in out
    assert "service\t\tJob completed successfully." in out
    assert re.search(r"in all +\d+", out)
    assert processes_below(tmp_path) == []
    assert left_by_us(tmp_path) == []


def test_a_failing_command_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    demo = Demo(tmp_path)
    with pytest.raises(DemoFailed, match="`mle jobs` exited with 1"):
        demo.mle("jobs", "list", cwd=tmp_path)
    assert "$ mle jobs list\n" in capfd.readouterr().out


def test_processes_that_stay_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginehouse.ops.demo._END_TIMEOUT_S", 0.2)
    environment = {**os.environ, "ENGINEHOUSE_REPLICA": str(tmp_path / "jobs/p/j/master-replica-0")}
    stubborn = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        end_processes_of(tmp_path)
        assert stubborn.wait(5) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
