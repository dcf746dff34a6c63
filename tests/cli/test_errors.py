"""Errors are one line, with the command, the status, the cure, and the right exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from enginehouse.testing.http import FakeHttpEngine, error_answer

Mle = Callable[..., Any]


def test_no_engine(mle: Mle, tmp_path: Path) -> None:
    result = mle("jobs", "list")
    assert result.code == 1
    directory = tmp_path / "no-engine"
    assert result.err == (
        f"ERROR: (mle.jobs.list) UNAVAILABLE: No engine is running on {directory}. "
        f"Start one with: mle up --detach --data-dir {directory}\n"
    )


def test_an_error_of_the_api(mle: Mle, engine: FakeHttpEngine) -> None:
    message = "Field: name Error: The specified job was not found."
    engine.on("GET", "/v1/projects/p/jobs/x", error_answer(404, "NOT_FOUND", message, ("name", "…")))
    result = mle("jobs", "describe", "x")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"ERROR: (mle.jobs.describe) NOT_FOUND: {message}\n"


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("training_input.runtime_version", "--runtime-version"),
        ("training_input.python_module", "--module-name"),
        ("training_input.package_uris", "--packages"),
        ("training_input.master_config.bogus", None),
    ],
)
def test_a_field_of_the_api_is_told_with_its_flag(
    mle: Mle, engine: FakeHttpEngine, field: str, flag: str | None
) -> None:
    engine.on("GET", "/v1/projects/p/jobs/x", error_answer(404, "NOT_FOUND", "gone"))
    engine.on("POST", "/v1/projects/p/jobs", error_answer(400, "INVALID_ARGUMENT", "Field: …", (field, "wrong")))
    result = mle("jobs", "submit", "training", "x", "--module-name", "trainer.task")
    assert result.code == 1
    assert (f"{field} is set by {flag}." in result.err) is (flag is not None)


@pytest.mark.parametrize(
    ("arguments", "start", "end"),
    [
        (["jobs", "lst"], "ERROR: (mle.jobs) No such command 'lst'.", "Try: mle jobs --help\n"),
        (
            ["jobs", "list", "--bogus"],
            "ERROR: (mle.jobs.list) No such option '--bogus'.",
            "Try: mle jobs list --help\n",
        ),
        (
            ["jobs", "describe"],
            "ERROR: (mle.jobs.describe) Missing argument 'JOB'.",
            "Try: mle jobs describe --help\n",
        ),
        (["predict"], "ERROR: (mle.predict) Missing option '--model'.", "Try: mle predict --help\n"),
        (
            ["jobs", "submit", "training", "j", "stray", "--", "--x"],
            "ERROR: (mle.jobs.submit.training) Got unexpected extra argument (stray)",
            "--help\n",
        ),
        (
            ["jobs", "submit", "training", "j", "--labels", "nonsense"],
            "ERROR: (mle.jobs.submit.training) Invalid value for '--labels': 'nonsense' is not KEY=VALUE,...",
            "--help\n",
        ),
        (
            ["jobs", "list", "--format", "xml"],
            "ERROR: (mle.jobs.list) Invalid value for '--format': 'xml'",
            "--help\n",
        ),
    ],
)
def test_wrong_command_lines(mle: Mle, arguments: list[str], start: str, end: str) -> None:
    result = mle(*arguments)
    assert result.code == 2
    assert result.err.startswith(start)
    assert result.err.endswith(end)
    assert "Usage: mle" in result.err


def test_a_missing_file(mle: Mle, engine: FakeHttpEngine) -> None:
    result = mle("predict", "--model", "m", "--json-instances", "/no/such/file")
    assert result.code == 1
    assert result.err == "ERROR: (mle.predict) No such file or directory: /no/such/file\n"


def test_a_fault_of_mle_is_no_traceback_unless_asked(mle: Mle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr("enginehouse.cli.invocation.Invocation.client", broken)
    result = mle("jobs", "list")
    assert result.code == 1
    assert result.err.startswith("ERROR: (mle.jobs.list) INTERNAL: RuntimeError: oh\n")
    assert "Traceback" not in result.err
    assert "Traceback" in mle("jobs", "list", "--verbosity", "debug").err


def test_an_interrupt(mle: Mle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("enginehouse.cli.invocation.Invocation.client", interrupted)
    result = mle("jobs", "list")
    assert result.code == 130
    assert result.err.endswith("Interrupted.\n")


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_global_flags_may_stand_anywhere(mle: Mle, engine: FakeHttpEngine, place: str) -> None:
    engine.on("GET", "/v1/projects/other/jobs", {})
    flag = ["--project", "other"]
    words = {
        "before": [*flag, "jobs", "list"],
        "between": ["jobs", *flag, "list"],
        "after": ["jobs", "list", *flag],
    }
    assert mle(*words[place]).code == 0


def test_quiet_keeps_results_and_errors(mle: Mle, engine: FakeHttpEngine) -> None:
    engine.on("GET", "/v1/projects/p/jobs", {})
    assert mle("jobs", "list").err == "Listed 0 items.\n"
    assert mle("jobs", "list", "-q").err == ""


def test_confirmations_are_asked_on_a_terminal_only(
    mle: Mle, engine: FakeHttpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.on("DELETE", "/v1/projects/p/models/m", {"name": "projects/p/operations/o", "done": True, "response": {}})
    assert mle("models", "delete", "m").code == 0

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []

    def refuse(text: str, **_: object) -> bool:
        asked.append(text)
        raise click.Abort

    monkeypatch.setattr("click.confirm", refuse)
    assert mle("models", "delete", "m").code == 130
    assert asked == ["Do you want to continue"]
    assert len(engine.of("DELETE")) == 1
    assert mle("models", "delete", "m", "--quiet").code == 0


def test_an_interrupt_while_the_process_ends_shows_no_traceback() -> None:
    program = """
import threading, time
import enginehouse.cli.tree as tree
from enginehouse.cli.main import main

def run():
    threading.Thread(target=threading.Event().wait).start()  # Python waits for it
    print("done", flush=True)
    return 0

tree.run = run
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "done\n"
    deadline = time.monotonic() + 10
    while catches(process.pid, signal.SIGINT) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
