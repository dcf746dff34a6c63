"""Part of job_start.py: the chapter's single-instance job, 5,000 steps on runtime 1.8, against the bare run.

The trainer is what `mle init --framework tensorflow1` makes, the arguments are those of its
scripts/single-instance-training.sh. There are two bare runs: one that reads and writes gs:// as the job does, which
is what the job is compared with, and one on local files.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.native import ensure_ca_redirect
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import make_sdist
from job_start_runs import run_until_end, running_engine

BAR = 1.1
CHAPTER_S = 9 * 60 + 28
BUCKET = "iris-dataset"
MLE = Path(sys.executable).with_name("mle")


@dataclass
class Times:
    """Seconds of each round: of the whole job, to its last log line, and of the two bare runs."""

    job: list[float] = field(default_factory=list)
    last_line: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    local: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The job to the bare run with the same data, the median of pairs."""
        return statistics.median(one / other for one, other in zip(self.job, self.bare, strict=True))


def measure(folder: Path, python: Path, *, steps: int, rounds: int) -> Times:
    """Job, bare and local run in turn, after one short job that makes the pool ready."""
    times = Times()
    folder.mkdir()
    with running_engine(folder / "engine") as url:
        client = connect(url=url)
        subprocess.run(
            [MLE, "init", "iris", "--framework", "tensorflow1"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        project = folder / "iris"
        client.storage.create_bucket(BUCKET)
        for name in ("train_data.csv", "test_data.csv"):
            client.storage.upload_file(project / name, ObjectUri(BUCKET, name))
        run_job(client, project, "warm_up", 1)
        time.sleep(5)
        for index in range(rounds):
            job_s, last_line_s = run_job(client, project, f"chapter_{index}", steps)
            times.job.append(job_s)
            times.last_line.append(last_line_s)
            job_dir = f"gs://{BUCKET}/jobs/bare_{index}"
            times.bare.append(run_bare(folder / "engine", project, python, f"gs://{BUCKET}", job_dir, steps))
            times.local.append(run_bare(None, project, python, str(project), str(folder / f"local{index}"), steps))
    return times


def report(times: Times, steps: int) -> None:
    """The table."""
    job, last, bare, local = (
        statistics.median(each) for each in (times.job, times.last_line, times.bare, times.local)
    )
    print(f"\nThe chapter's single-instance job, {steps} steps, runtime 1.8 (medians, s)")
    print(f"submit → SUCCEEDED {job:.1f}, submit → last log line {last:.1f} (the chapter: {CHAPTER_S}, 5000 steps)")
    print(
        f"bare on gs:// {bare:.1f} (job {times.ratio:.2f}x), bare on local files {local:.1f} (job {job / local:.2f}x)"
    )


def arguments(data: str, steps: int) -> list[str]:
    """What scripts/single-instance-training.sh gives to the trainer."""
    return [
        *("--train-files", f"{data}/train_data.csv", "--eval-files", f"{data}/test_data.csv"),
        *("--train-steps", str(steps), "--eval-steps", "100"),
    ]


def run_job(client: Client, project: Path, job_id: str, steps: int) -> tuple[float, float]:
    """Seconds from submit to the end and to the last line of the log."""
    files = {f"trainer/{path.name}": path.read_text() for path in (project / "trainer").glob("*.py")}
    package = project / f"{job_id}.tar.gz"
    package.write_bytes(make_sdist({**files, "trainer/nonce.py": f"ID = {job_id + str(time.time_ns())!r}\n"}))
    uri = ObjectUri(BUCKET, f"packages/{job_id}/trainer-0.1.tar.gz")
    client.storage.upload_file(package, uri)
    training_input = {
        "runtimeVersion": "1.8",
        "pythonModule": "trainer.task",
        "packageUris": [str(uri)],
        "args": arguments(f"gs://{BUCKET}", steps),
        "jobDir": f"gs://{BUCKET}/jobs/{job_id}",
    }
    begin = time.time()
    total_s, entries = run_until_end(client, {"jobId": job_id, "trainingInput": training_input})
    last = max(datetime.fromisoformat(entry["timestamp"][:26] + "+00:00").timestamp() for entry in entries)
    return total_s, last - begin


def run_bare(data_dir: Path | None, project: Path, python: Path, data: str, job_dir: str, steps: int) -> float:
    """Seconds of `python -m trainer.task`; wired to the engine of `data_dir`, if one is given."""
    module = [str(python), "-m", "trainer.task", *arguments(data, steps), "--job-dir", job_dir]
    environment = dict(os.environ)
    if data_dir is not None:
        settings = load_settings()
        library = ensure_ca_redirect(settings.runtimes_dir, None)
        wired = [str(MLE), "run", "--data-dir", str(data_dir), "--", "env"]
        seen = subprocess.run(wired, check=True, capture_output=True, text=True).stdout
        environment = dict(line.split("=", 1) for line in seen.splitlines() if "=" in line)
        environment["LD_PRELOAD"] = str(library)
    begin = time.time()
    subprocess.run(module, cwd=project, env=environment, check=True, capture_output=True)
    return time.time() - begin
