"""Engines come and go; jobs stay. Real processes on a real data directory."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enginehouse.core.names import ObjectUri
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess, make_sdist, processes_of

TRAINER = """\
import sys, time
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
print("done", flush=True)
"""


def submit(client: Client, folder: Path, job_id: str, seconds: float, **training_input: object) -> None:
    if not client.storage.bucket_exists("bucket"):
        client.storage.create_bucket("bucket")
        package = folder / "trainer-0.1.tar.gz"
        package.write_bytes(make_sdist({"trainer/task.py": TRAINER}))
        client.storage.upload_file(package, ObjectUri("bucket", package.name))
    body = {
        "jobId": job_id,
        "trainingInput": {
            "runtimeVersion": "scikit-learn-1.9",
            "pythonModule": "trainer.task",
            "packageUris": ["gs://bucket/trainer-0.1.tar.gz"],
            "args": [str(seconds)],
            **training_input,
        },
    }
    client.jobs.create(body)


def wait_for(client: Client, job_id: str, *states: str) -> dict[str, object]:
    deadline = time.monotonic() + 120
    while True:
        job = client.jobs.get(job_id)
        if job["state"] in states:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def messages(client: Client, job_id: str) -> list[str]:
    return [entry["message"] for entry in client.jobs.read_logs(job_id)["entries"]]


@pytest.mark.slow
def test_a_clean_shutdown_leaves_jobs_running_and_the_next_engine_finds_them(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path / "data").start()
    client = connect(url=engine.url)
    submit(client, tmp_path, "long_1", 6)
    wait_for(client, "long_1", "RUNNING")
    port = engine.url.rpartition(":")[2]
    assert engine.stop() == 0
    assert not (engine.data_dir / "engine.json").exists()
    left = processes_of(tmp_path)
    assert any("trainer.task" in line or "bootstrap" in line for line in left), left
    engine.start()
    assert engine.url.rpartition(":")[2] == port, "the port is the same again: running jobs know the engine by it"
    client = connect(url=engine.url)
    assert wait_for(client, "long_1", "SUCCEEDED", "FAILED")["state"] == "SUCCEEDED"
    assert messages(client, "long_1").count("begun") == 1
    assert messages(client, "long_1").count("done") == 1
    assert engine.stop() == 0
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_a_job_over_its_time_and_a_cancelled_one_end_and_leave_nothing(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CANCEL_GRACE_S": "1"}) as engine:
        client = connect(url=engine.url)
        submit(client, tmp_path, "over_1", 600, scheduling={"maxRunningTime": "2s"})
        submit(client, tmp_path, "cancelled_1", 600)
        wait_for(client, "cancelled_1", "RUNNING")
        client.jobs.cancel("cancelled_1")
        over = wait_for(client, "over_1", "CANCELLED", "SUCCEEDED", "FAILED")
        cancelled = wait_for(client, "cancelled_1", "CANCELLED", "SUCCEEDED", "FAILED")
        assert (over["state"], cancelled["state"]) == ("CANCELLED", "CANCELLED")
        assert "maxRunningTime (2s)" in str(over["errorMessage"])
        assert cancelled["errorMessage"] == "The job was cancelled by the user."
        assert not [line for line in processes_of(tmp_path) if "trainer.task" in line]
    assert processes_of(tmp_path) == []


def test_a_second_engine_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "data") as engine:
        command = [sys.executable, "-m", "enginehouse.cli", "up", "--port", "0", "--data-dir", str(engine.data_dir)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"An engine is running on {engine.data_dir} already" in second.stderr
        assert engine.url in second.stderr
        assert "mle down" in second.stderr
        assert connect(url=engine.url).engine.healthy(), "the first one goes on"


def test_a_taken_port_is_refused_with_the_cure(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "data") as engine:
        port = engine.url.rpartition(":")[2]
        command = [sys.executable, "-m", "enginehouse.cli", "up", "--port", port, "--data-dir", str(tmp_path / "b")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert second.returncode == 1
        assert f"Can't listen on 127.0.0.1:{port}" in second.stderr
        assert "--port" in second.stderr


@pytest.mark.parametrize("flag", ["--grpc-port", "--gateway-port"])
def test_a_taken_second_port_is_refused_in_one_sentence(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "enginehouse.cli", "up", "--port", "0", flag, port]
        done = subprocess.run(
            [*command, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1
    started, error = done.stderr.splitlines()
    assert started.startswith("Starting an engine")
    assert error.startswith(f"ERROR: (mle.up) FAILED_PRECONDITION: Can't listen on 127.0.0.1:{port} for ")
    assert f"with {flag}, or 0 for a free one" in error


def test_listening_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "enginehouse.cli",
        "up",
        "--host",
        "0.0.0.0",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "token" in refused.stderr
    assert not (tmp_path / "data" / "engine.json").exists()


def test_several_engines_live_side_by_side(tmp_path: Path) -> None:
    with EngineProcess(tmp_path / "a") as first, EngineProcess(tmp_path / "b") as second:
        assert first.url != second.url
        connect(url=first.url).storage.create_bucket("only-in-a")
        assert connect(url=first.url).storage.bucket_exists("only-in-a")
        assert not connect(url=second.url).storage.bucket_exists("only-in-a")
        assert connect(data_dir=tmp_path / "b").engine.status()["url"] == second.url
