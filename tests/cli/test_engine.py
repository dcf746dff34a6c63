"""Starting and stopping a real engine. Slow by nature: each start imports the whole engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from enginehouse.cli.detach import start_detached, stop
from enginehouse.core.errors import EngineError, FailedPrecondition
from enginehouse.core.files import FileLock, atomic_write_json, is_locked
from enginehouse.core.settings import SETTINGS, load_settings

Mle = Callable[..., Any]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mle: Mle) -> Iterator[Path]:
    """A data directory whose engine is stopped at the end, whatever the test did."""
    directory = tmp_path / "engine"
    monkeypatch.setenv("ENGINEHOUSE_DATA_DIR", str(directory))
    yield directory
    settings = load_settings({"data_dir": directory})
    if is_locked(settings.lock_path):
        stop(settings, timeout_s=30)


def test_up_status_settings_down(mle: Mle, data_dir: Path) -> None:
    up = mle("up", "--detach", "--port", "0", "--max-running-jobs", "3")
    assert up.code == 0, up.err
    url = up.out.strip()
    assert url.startswith("http://127.0.0.1:")

    status = yaml.safe_load(mle("status").out)
    assert (status["url"], status["dataDir"]) == (url, str(data_dir))
    process = psutil.Process(status["pid"])
    assert os.getsid(process.pid) == process.pid, "in a session of its own"

    assert yaml.safe_load(mle("status", "--url", url).out)["pid"] == status["pid"]
    assert yaml.safe_load(mle("version").out)["engine"] == status["version"]
    settings = {row["name"]: row["value"] for row in json.loads(mle("settings", "--format", "json").out)}
    assert set(settings) == {setting.name for setting in SETTINGS}
    assert settings["max_running_jobs"] == 3
    assert "2.21" in mle("runtimes", "list").out

    again = mle("up", "--detach", "--port", "0")
    assert again.code == 1
    assert f"An engine is running on {data_dir} already (pid {status['pid']}, {url})." in again.err

    down = mle("down")
    assert (down.code, down.err) == (0, f"The engine on {data_dir} (pid {status['pid']}) has stopped.\n")
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "this test is its parent"
    assert mle("status").code == 1
    assert mle("down").code == 1


def test_a_start_that_fails_shows_the_end_of_the_log(mle: Mle, data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = mle("up", "--detach", "--port", port)
    assert result.code == 1
    assert "ERROR: (mle.up) FAILED_PRECONDITION: The engine ended with status 1." in result.err
    assert f"Can't listen on 127.0.0.1:{port}" in result.err
    assert not is_locked(data_dir / "engine.lock")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "'x' is not a valid integer"),
        (["--settings", "/no/such.toml"], "there is no settings file /no/such.toml"),
    ],
)
def test_wrong_settings_are_told_at_once(mle: Mle, data_dir: Path, arguments: list[str], message: str) -> None:
    result = mle("up", "--detach", *arguments)
    assert result.code in (1, 2)
    assert message in result.err
    assert not data_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_foreground_engine_ends_on_a_signal(mle: Mle, data_dir: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "enginehouse.cli", "up", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while mle("status").code != 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert b"Traceback" not in out


def test_settings_without_an_engine(mle: Mle, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_TOKEN", "hush")
    result = mle("settings")
    assert "No engine is running" in result.err
    assert result.out.splitlines()[0].split() == ["NAME", "VALUE", "MEANING"]
    assert "hush" not in result.out
    assert str(data_dir) in result.out


def test_down_signals_nobody_but_the_holder_of_the_lock(tmp_path: Path) -> None:
    """A stale engine file names a pid that belongs to somebody else by now."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    settings = load_settings({"data_dir": tmp_path}, environ={})
    atomic_write_json(settings.engine_file, {"url": "http://127.0.0.1:1", "pid": bystander.pid})
    try:
        with FileLock(settings.lock_path).held(), pytest.raises(FailedPrecondition, match="not by process"):
            stop(settings, timeout_s=1)
        with pytest.raises(EngineError, match="No engine is running"):
            stop(settings, timeout_s=1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_engine_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def sleeper(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(
            real([sys.executable, "-c", "import time; print('starting', flush=True); time.sleep(60)"], **options)
        )
        return started[0]

    monkeypatch.setattr("enginehouse.cli.detach.subprocess.Popen", sleeper)
    settings = load_settings({"data_dir": tmp_path}, environ={})
    with pytest.raises(EngineError, match=r"(?s)does not answer after 1 s.*starting"):
        start_detached(settings, ["up"], timeout_s=1)
    assert started[0].poll() is not None
