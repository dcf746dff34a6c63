"""Part of job_start.py: one engine, one bare run, one job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client

TRAINER = """\
import sys, time
print("FIRST LINE %.6f" % time.time())
sys.stdout.flush()
"""
SETUP = """\
from setuptools import find_packages, setup

setup(name="trainer", version="0.1", packages=find_packages())
"""


@dataclass
class Timing:
    """Seconds from the start to the first line of user code and to the end."""

    first_line_s: float
    total_s: float


@contextmanager
def running_engine(data_dir: Path, *, warm_pool: int = 2) -> Iterator[str]:
    """An engine of its own, on a free port."""
    mle = Path(sys.executable).with_name("mle")
    subprocess.run(
        [mle, "up", "--detach", "--port", "0", "--data-dir", data_dir],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "ENGINEHOUSE_WARM_POOL": str(warm_pool), "ENGINEHOUSE_WARM_POOL_MEMORY": "8GiB"},
    )
    try:
        yield json.loads((data_dir / "engine.json").read_text())["url"]
    finally:
        subprocess.run([mle, "down", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL)


def runtime_python(runtime: str, python: str | None = None) -> Path:
    """The interpreter of a runtime, built if it is not yet."""
    import uv

    settings = load_settings()
    path = Path(uv.find_uv_bin())
    cache = RuntimeCache(settings.runtimes_dir, path)
    return cache.ensure(Catalogue.load(uv=path).resolve(runtime, python), print).python


def write_package(folder: Path, trainer: str, nonce: str) -> None:
    """A trainer whose content no other has."""
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "__init__.py").write_text("")
    (folder / "trainer" / "task.py").write_text(
        f"from __future__ import print_function\n{trainer}\nprint({nonce!r})\n"
    )


def make_sdist(folder: Path, trainer: str, nonce: str) -> Path:
    """What `python setup.py sdist` gives for such a project."""
    root = folder / "trainer-0.1"
    write_package(root, trainer, nonce)
    (root / "setup.py").write_text(SETUP)
    (root / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: trainer\nVersion: 0.1\n")
    path = folder / "trainer-0.1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root, "trainer-0.1")
    return path


def make_wheel(folder: Path, trainer: str, nonce: str) -> Path:
    """The same as a wheel."""
    write_package(folder, trainer, nonce)
    info = "trainer-0.1.dist-info"
    path = folder / "trainer-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in ("trainer/__init__.py", "trainer/task.py"):
            archive.write(folder / file, file)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: trainer\nVersion: 0.1\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def run_bare(folder: Path, python: Path, trainer: str, nonce: str = "bare") -> Timing:
    """`python -m trainer.task`, with nothing around it."""
    write_package(folder, trainer, nonce)
    begin = time.time()
    result = subprocess.run([python, "-m", "trainer.task"], cwd=folder, check=True, capture_output=True, text=True)
    return Timing(first_line_time(result.stdout.splitlines()) - begin, time.time() - begin)


def run_job(client: Client, job_id: str, package: Path, runtime: str, python: str | None = None) -> Timing:
    """Submit, and wait as a client does. The clock starts when the package is uploaded, before the submit."""
    uri = f"gs://bench/{job_id}/{package.name}"
    client.storage.upload_file(package, ObjectUri.parse(uri))
    training_input = {"runtimeVersion": runtime, "pythonModule": "trainer.task", "packageUris": [uri]}
    if python:
        training_input["pythonVersion"] = python
    begin = time.time()
    total_s, entries = run_until_end(client, {"jobId": job_id, "trainingInput": training_input})
    return Timing(first_line_time([entry["message"] for entry in entries]) - begin, total_s)


def run_until_end(client: Client, body: dict[str, Any]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds from the submit of a job to its success, and its log."""
    job_id = body["jobId"]
    begin = time.time()
    client.jobs.create(body)
    while True:
        job = client.jobs.get(job_id)
        if job.get("endTime"):
            break
        time.sleep(0.01)
    total_s = time.time() - begin
    if job["state"] != "SUCCEEDED":
        raise SystemExit(f"{job_id} ended {job['state']}: {job.get('errorMessage')}")
    entries: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = client.jobs.read_logs(job_id, cursor)
        entries += answer["entries"]
        cursor = answer["cursor"]
        if not answer["entries"]:
            return total_s, entries


def first_line_time(lines: list[str]) -> float:
    line = next(line for line in lines if line.startswith("FIRST LINE "))
    return float(line.rpartition(" ")[2])
