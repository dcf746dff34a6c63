"""`make demo`: the whole line in one go, with the commands that a user would type.

    python -m enginehouse.ops.demo

Data into a bucket, a trainer submitted and trained, its hyperparameters tuned, its model deployed, predictions
answered, and made in batch for data that the training never saw, by which the model is judged. Exit 0 when all of it
worked and the accuracy is at least `GOAL`; an engine of its own, in a folder of its own, is started before and
removed after, whatever happens between. KEEP=1 leaves it running.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from enginehouse.core.units import format_elapsed

GOAL = 0.9
BUCKET = "gs://iris-dataset"
RUNTIME = "2.21"
_END_TIMEOUT_S = 30.0
_COMMAND_END_TIMEOUT_S = 8.0


class DemoFailed(Exception):
    """A step did not work; the message says which."""


@dataclass
class Demo:
    """One run of the demo.

    Args:
        home: an empty folder for the engine's data and the project; removed by `clean_up`.
    """

    home: Path
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.home / "engine"

    @property
    def project(self) -> Path:
        return self.home / "iris"

    def run(self) -> None:
        """All steps.

        Raises:
            DemoFailed: a command failed, or the model is not good enough.
        """
        job, tuning, batch = (time.strftime(f"{name}_%Y%m%d_%H%M%S") for name in ("iris", "iris_tune", "iris_batch"))
        with self.step("start an engine"):
            self.mle("up", "--detach", "--port", "0", cwd=self.home)
        with self.step("write the project"):
            self.mle("init", "iris", "--framework", "tensorflow", cwd=self.home)
        with self.step("put the data into a bucket"):
            self.mle("storage", "mb", BUCKET)
            self.mle("storage", "cp", "train_data.csv", "test_data.csv", "hold_out_test.csv", BUCKET)
        with self.step("train"):
            self.train(job, steps=1000)
        with self.step("tune, two trials at a time"):
            self.train(tuning, "--config", "hptuning_config.yaml", steps=200)
            self.mle("jobs", "trials", tuning)
        with self.step("deploy"):
            exports = self.mle("storage", "ls", f"{BUCKET}/jobs/{job}/export/iris/", capture=True)
            self.mle("models", "create", "iris", "--regions", "us-central1")
            origin = exports.split()[-1]
            self.mle("versions", "create", "v1", "--model", "iris", "--origin", origin, "--runtime-version", RUNTIME)
        with self.step("predict"):
            self.mle("predict", "--model", "iris", "--version", "v1", "--json-instances", "test-sample.json")
        with self.step("predict in batch, and judge"):
            accuracy = self.judge(batch)
        print(f"\nAccuracy on hold_out_test.csv: {accuracy:.3f}")
        if accuracy < GOAL:
            raise DemoFailed(f"The accuracy {accuracy:.3f} is below {GOAL}.")

    def train(self, job: str, *flags: str, steps: int) -> None:
        """Submit the project's trainer and follow its log to the end."""
        self.mle(
            *("jobs", "submit", "training", job, "--stream-logs", *flags, "--runtime-version", RUNTIME),
            *("--job-dir", f"{BUCKET}/jobs/{job}", "--module-name", "trainer.task", "--package-path", "trainer/"),
            *("--region", "us-central1", "--"),
            *("--train-files", f"{BUCKET}/train_data.csv", "--eval-files", f"{BUCKET}/test_data.csv"),
            *("--train-steps", str(steps), "--eval-steps", "100"),
        )

    def judge(self, job: str) -> float:
        """The share of the held-out flowers that the deployed model names rightly, in a batch prediction job."""
        with (self.project / "hold_out_test.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        truth = [row.pop("class") for row in rows]
        lines = [json.dumps({name: float(text) for name, text in row.items()}) for row in rows]
        (self.project / "hold_out.json").write_text("\n".join(lines) + "\n")
        self.mle("storage", "cp", "hold_out.json", BUCKET)
        self.mle(
            *("jobs", "submit", "prediction", job, "--stream-logs", "--model", "iris", "--version", "v1"),
            *("--data-format", "text", "--input-paths", f"{BUCKET}/hold_out.json", "--region", "us-central1"),
            *("--output-path", f"{BUCKET}/predictions/{job}"),
        )
        results = f"{BUCKET}/predictions/{job}/prediction.results*"
        predicted = [
            json.loads(line)["class"] for line in self.mle("storage", "cat", results, capture=True).splitlines()
        ]
        hits = [a == b for a, b in zip(predicted, truth, strict=True)]
        return hits.count(True) / len(hits)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and take its time."""
        print(f"\n--- {title}", flush=True)
        started = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - started))

    def mle(self, *arguments: str, cwd: Path | None = None, capture: bool = False) -> str:
        """Run a command as a user would and show its line.

        Returns:
            Its standard output with `capture`, else nothing: it goes to the terminal.

        Raises:
            DemoFailed: it did not exit with 0.
        """
        print(f"$ {shlex.join(['mle', *arguments])}", flush=True)
        stdout = subprocess.PIPE if capture else None
        # Python answers Ctrl-C with a traceback while it starts; `mle` takes signals that are held back when it can.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process = subprocess.Popen(
            [*mle_command(), *arguments], cwd=cwd or self.project, env=self.environment(), stdout=stdout, text=True
        )
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            out, _ = process.communicate()
        except KeyboardInterrupt:
            self._let_end(process)
            raise
        if process.returncode != 0:
            raise DemoFailed(f"`mle {arguments[0]}` exited with {process.returncode}.")
        return out or ""

    def _let_end(self, process: subprocess.Popen[str]) -> None:
        """Ctrl-C reached the command too, which tidies up; a signal to the demo alone did not."""
        try:
            process.wait(_COMMAND_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def environment(self) -> dict[str, str]:
        """The user's environment, with the demo's own engine as the one to speak to."""
        kept = {name: value for name, value in os.environ.items() if name != "ENGINEHOUSE_URL"}
        return {**kept, "ENGINEHOUSE_DATA_DIR": str(self.data_dir)}

    def summary(self) -> str:
        """The time of each step."""
        total = sum(seconds for _, seconds in self.times)
        rows = [*self.times, ("in all", total)]
        return "\n".join(f"  {title:<28} {format_elapsed(seconds):>12}" for title, seconds in rows)

    def clean_up(self) -> None:
        """Stop jobs and engine and remove the folder; nothing of the demo is left."""
        if (self.data_dir / "engine.json").exists():
            self._quietly("jobs", "list", "--format", "json", then=self._cancel_all)
            self._quietly("down")
        end_processes_of(self.data_dir)
        shutil.rmtree(self.home, ignore_errors=True)

    def _cancel_all(self, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            if "endTime" not in job:
                self._quietly("jobs", "cancel", job["jobId"])

    def _quietly(self, *arguments: str, then: Any = None) -> None:
        done = subprocess.run(
            [*mle_command(), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if then is not None and done.returncode == 0:
            then(json.loads(done.stdout))


def mle_command() -> list[str]:
    """The `mle` beside this interpreter, or the module where there is no script."""
    script = Path(sys.executable).with_name("mle")
    return [str(script)] if script.exists() else [sys.executable, "-m", "enginehouse.cli"]


def end_processes_of(data_dir: Path) -> None:
    """Wait for the processes of a data directory to end, and kill those that don't.

    Jobs outlive their engine by design, so a cancelled one may still be in its grace time when the engine is gone.
    A process belongs to the directory when its command line or its environment names it.
    """
    deadline = time.monotonic() + _END_TIMEOUT_S
    while (left := _processes_of(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        try:
            process.kill()
        except psutil.Error:
            continue


def _processes_of(data_dir: Path) -> list[psutil.Process]:
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [each for each in psutil.process_iter() if each.pid not in own and _names(each, str(data_dir))]


def _names(process: psutil.Process, data_dir: str) -> bool:
    try:
        variables = process.environ()
        told = [
            variables.get("ENGINEHOUSE_DATA_DIR", ""),
            variables.get("ENGINEHOUSE_REPLICA", ""),
            *process.cmdline(),
        ]
    except psutil.Error:  # it ended meanwhile, or belongs to another user
        return False
    return any(data_dir in text for text in told)


def main() -> int:
    """Run the demo and clean up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo = Demo(Path(tempfile.mkdtemp(prefix="enginehouse-demo-")))
    keep = False
    try:
        print(f"$ export ENGINEHOUSE_DATA_DIR={demo.data_dir}")
        demo.run()
        keep = os.environ.get("KEEP", "") not in ("", "0")
        print(f"\nTime of each step:\n{demo.summary()}")
        return 0
    except DemoFailed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; cleaning up.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if keep:
            url = json.loads((demo.data_dir / "engine.json").read_text())["url"]
            print(f"\nThe engine goes on: {url}\nThe project is {demo.project}")
            print(f"Use it with: export ENGINEHOUSE_DATA_DIR={demo.data_dir}")
            print(f"Stop it with: mle down --data-dir {demo.data_dir}")
        else:
            demo.clean_up()


if __name__ == "__main__":
    sys.exit(main())
