"""Kills at random moments, of runners and of engines in a launch: user code never runs twice, nothing is left."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from enginehouse.backends.base import Phase
from enginehouse.backends.local import LocalBackend
from enginehouse.core.files import FileLock, atomic_write_json, is_locked
from enginehouse.replica import spec as names
from enginehouse.replica.processes import process_info
from enginehouse.testing.backends import FAMILY, SLEEPER, leftovers
from enginehouse.testing.replicas import ReplicaFactory, messages, wait_for_end, wait_for_line, wait_until


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "replica"


def runner_pid(directory: Path) -> int:
    file = directory / names.RUNNER_FILE
    wait_until(file.exists, what="the runner's start")
    return int(json.loads(file.read_bytes())["pid"])


def traced(trace: Path, then: str = "") -> str:
    """Code that leaves one character per run."""
    return f"with open({str(trace)!r}, 'a') as file:\n    file.write('x')\n" + then


def runs(trace: Path) -> int:
    return len(trace.read_text()) if trace.exists() else 0


def test_killed_runner_takes_all_with_it(backend: LocalBackend, replicas: ReplicaFactory, directory: Path) -> None:
    backend.launch(directory, replicas.spec(FAMILY + "    time.sleep(600)\n"))
    wait_for_line(directory, "ready")
    os.kill(runner_pid(directory), signal.SIGKILL)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and outcome.reason == "lost" and outcome.started_ns is not None
    backend.reap(directory)
    assert leftovers(directory) == []


def test_main_process_dies_with_its_runner_without_any_engine(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path
) -> None:
    backend.launch(directory, replicas.spec("import os, time\nprint('pid', os.getpid())\ntime.sleep(600)"))
    wait_for_line(directory, "pid ")
    pid = int(next(line for line in messages(directory) if line.startswith("pid "))[4:])
    os.kill(runner_pid(directory), signal.SIGKILL)
    wait_until(lambda: (info := process_info(pid)) is None or not info.alive, what="the end of the main process")


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_runner_on_another_python(replicas: ReplicaFactory, directory: Path, version: str) -> None:
    found = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    if not found:
        pytest.skip(f"Python {version} is not among pyenv's versions on this host")
    backend = LocalBackend(python=found[-1])
    backend.launch(directory, replicas.spec("import sys\nprint(sys.version_info[:2])\nraise SystemExit(4)"))
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and (outcome.reason, outcome.exit_code) == ("exited", 4)
    assert f"(3, {version[2:]})" in messages(directory)
    assert (directory / names.RUNNER_LOG_FILE).read_text() == ""


@pytest.mark.parametrize("seed", range(12))
def test_runner_killed_at_any_moment(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path, tmp_path: Path, seed: int
) -> None:
    trace = tmp_path / "trace"
    spec = replicas.spec(traced(trace, FAMILY.replace("\n    ", "\n")), grace_s=0.1)
    backend.launch(directory, spec)
    pid = runner_pid(directory)
    time.sleep(random.Random(seed).uniform(0, 0.8))  # a moment of its life: the point of the test
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    outcome = wait_for_end(backend, directory).outcome
    backend.reap(directory)
    assert outcome is not None and outcome.reason in ("lost", "exited")
    assert leftovers(directory) == []
    backend.launch(directory, spec)
    assert backend.status(directory).outcome == outcome
    assert runs(trace) <= 1 and (outcome.reason == "lost" or runs(trace) == 1)


@pytest.mark.parametrize("seed", range(10))
def test_stop_at_any_moment(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path, tmp_path: Path, seed: int
) -> None:
    trace = tmp_path / "trace"
    backend.launch(directory, replicas.spec(traced(trace, "import time\ntime.sleep(0.3)\n")))
    time.sleep(random.Random(seed).uniform(0, 0.6))
    backend.stop(directory, reason="Cancelled.", grace_s=0.1)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and outcome.reason in ("stopped", "exited")
    if outcome.reason == "stopped":
        assert outcome.message == "Cancelled."
        assert runs(trace) == 0 or outcome.started_ns is not None
    else:
        assert outcome.succeeded and runs(trace) == 1
    backend.reap(directory)
    assert leftovers(directory) == []


ENGINE = """
import sys
from pathlib import Path
import json
from enginehouse.backends.local import LocalBackend
from enginehouse.replica.spec import ReplicaSpec
print("begin", flush=True)
LocalBackend().launch(Path(sys.argv[1]), ReplicaSpec.from_json(json.loads(sys.argv[2])))
print("launched", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("seed", range(10))
def test_engine_killed_in_the_middle_of_a_launch(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path, tmp_path: Path, seed: int
) -> None:
    trace = tmp_path / "trace"
    spec = replicas.spec(traced(trace, "import time\ntime.sleep(0.2)\n"))
    command = [sys.executable, "-c", ENGINE, str(directory), json.dumps(spec.to_json())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None and engine.stdout.readline() == "begin\n"
        time.sleep(random.Random(seed).uniform(0, 0.012))
        engine.kill()
    # The next engine does what a reconciler does.
    status = backend.status(directory)
    while status.phase is not Phase.ENDED:
        if status.phase is Phase.ABSENT:
            backend.launch(directory, spec)
        time.sleep(0.02)
        status = backend.status(directory)
    assert status.outcome is not None and status.outcome.succeeded
    assert runs(trace) == 1
    backend.reap(directory)


def test_replica_outlives_its_engine(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path, tmp_path: Path
) -> None:
    trace, go_on = tmp_path / "trace", tmp_path / "go on"
    wait = f"import os, time\nprint('ready')\nwhile not os.path.exists({str(go_on)!r}):\n    time.sleep(0.01)\n"
    spec = replicas.spec(traced(trace, wait + "print('finished')\n"))
    command = [sys.executable, "-c", ENGINE, str(directory), json.dumps(spec.to_json())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as engine:
        wait_for_line(directory, "ready")
        os.killpg(engine.pid, signal.SIGKILL)
    assert backend.status(directory).phase is Phase.RUNNING
    backend.launch(directory, spec)
    go_on.touch()
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and outcome.succeeded and runs(trace) == 1
    assert messages(directory).count("finished") == 1


def test_half_done_launch_is_absent(backend: LocalBackend, replicas: ReplicaFactory, directory: Path) -> None:
    spec = replicas.spec("print('ran')")
    directory.mkdir()
    atomic_write_json(directory / names.SPEC_FILE, spec.to_json())
    assert backend.status(directory).phase is Phase.ABSENT
    backend.launch(directory, spec)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and outcome.succeeded


def test_stop_of_a_half_done_launch(backend: LocalBackend, replicas: ReplicaFactory, directory: Path) -> None:
    directory.mkdir()
    atomic_write_json(directory / names.SPEC_FILE, replicas.spec("print('ran')").to_json())
    backend.stop(directory, reason="Cancelled.", grace_s=1)
    outcome = backend.status(directory).outcome
    assert outcome is not None and (outcome.reason, outcome.message) == ("stopped", "Cancelled.")


def test_runner_killed_before_user_code_began_may_still_be_stopped(
    backend: LocalBackend, replicas: ReplicaFactory, directory: Path
) -> None:
    """The request came while a launching engine held the lock; engine and runner then died."""
    directory.mkdir()
    lock = FileLock(directory / names.LOCK_FILE)
    lock.acquire()
    backend.stop(directory, reason="Cancelled.", grace_s=1)
    assert backend.status(directory).phase is Phase.PREPARING
    lock.release()
    outcome = backend.status(directory).outcome
    assert outcome is not None and outcome.reason == "stopped"


def test_runner_that_cannot_start_is_told(tmp_path: Path, replicas: ReplicaFactory, directory: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 127\n")
    broken.chmod(0o755)
    backend = LocalBackend(python=broken)
    backend.launch(directory, replicas.spec("print('ran')"))
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and outcome.reason == "lost"
    assert outcome.message.endswith("It said: no such library")


def test_interpreter_that_is_missing_leaves_the_replica_absent(replicas: ReplicaFactory, directory: Path) -> None:
    backend = LocalBackend(python=Path("/nowhere/python"))
    with pytest.raises(OSError, match="nowhere"):
        backend.launch(directory, replicas.spec("print('ran')"))
    assert backend.status(directory).phase is Phase.ABSENT
    assert not is_locked(directory / names.LOCK_FILE)


def test_no_zombies_and_no_threads_are_left(backend: LocalBackend, replicas: ReplicaFactory, tmp_path: Path) -> None:
    directories = [tmp_path / str(count) for count in range(3)]
    for directory in directories:
        backend.launch(directory, replicas.spec("print('ran')"))
    for directory in directories:
        wait_for_end(backend, directory)
        pid = runner_pid(directory)
        wait_until(lambda pid=pid: process_info(pid) is None, what="the runner's end, also as a zombie")
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("runner-")], what="the threads' end"
    )


def test_a_reused_pid_is_not_signalled(backend: LocalBackend, directory: Path) -> None:
    directory.mkdir()
    lock = FileLock(directory / names.LOCK_FILE)
    lock.acquire()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        atomic_write_json(directory / names.RUNNER_FILE, {"pid": stranger.pid, "create_time": 1})
        backend.stop(directory, reason="Cancelled.", grace_s=1)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
        stranger.kill()
    lock.release()


def test_phases_are_right_while_others_look(backend: LocalBackend, replicas: ReplicaFactory, directory: Path) -> None:
    """Looking at the lock must neither fail a launch nor make a running replica look dead."""
    done = threading.Event()
    seen: list[Phase] = []

    def look() -> None:
        while not done.is_set():
            seen.append(backend.status(directory).phase)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    backend.launch(directory, replicas.spec(SLEEPER))
    wait_for_line(directory, "ready")
    backend.stop(directory, reason="Enough.", grace_s=5)
    outcome = wait_for_end(backend, directory).outcome
    done.set()
    for thread in threads:
        thread.join()
    assert outcome is not None and outcome.reason == "stopped"
    assert {Phase.ABSENT, Phase.RUNNING} <= set(seen)
