"""How much the engine adds to a training job: submit → first line of user code, and → SUCCEEDED.

Both sides run the same trainer in the same interpreter: once as a job on a running engine with a warm runtime, once
as the bare `python -m trainer.task`, in turn. Each job brings a package that the engine has never seen (its content
differs), so that installing it is part of what is measured; a second row repeats one package, as a re-submit does.

    python bench/job_start.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client, connect

RUNTIME = "scikit-learn-1.9"
FIRST_LINE_BAR_S = 0.5
TOTAL_BAR_S = 1.0
TRAINER = """\
import time
print("FIRST LINE %.6f" % time.time(), flush=True)
print({nonce!r})
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    rounds = 5 if parser.parse_args().quick else 15
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder)) as url:
        results = measure(Path(folder), url, rounds)
    report(results)


def measure(folder: Path, url: str, rounds: int) -> dict[str, list[Timing]]:
    """One warm-up, then `rounds` times each variant, in turn."""
    client = connect(url=url)
    client.storage.create_bucket("bench")
    python = warm_runtime_python()
    nonce = f"{os.getpid()}-{time.time_ns()}"
    makers: dict[str, Callable[[int], Path]] = {
        "new wheel": lambda i: make_wheel(folder / f"w{i}", f"{nonce}-w{i}"),
        "new sdist": lambda i: make_sdist(folder / f"s{i}", f"{nonce}-s{i}"),
        "same sdist": lambda i: make_sdist(folder / f"r{i}", f"{nonce}-repeated"),
    }
    results: dict[str, list[Timing]] = {name: [] for name in ["bare", *makers]}
    for index in range(rounds + 1):
        round_results = {"bare": run_bare(folder / f"bare{index}", python, nonce)}
        for name, make in makers.items():
            job_id = f"bench_{name.replace(' ', '_')}_{index}"
            round_results[name] = run_job(client, job_id, make(index))
        if index:  # the first round warms caches on both sides
            for name, timing in round_results.items():
                results[name].append(timing)
    return results


def report(results: dict[str, list[Timing]]) -> None:
    """The table, and the bars as the last line. Extra seconds are medians of differences to the bare run."""
    bare = results["bare"]
    print(f"{'':12} {'first line':>12} {'end':>9} {'extra, first line':>19} {'extra, end':>12}   (medians, s)")
    worst = Timing(0.0, 0.0)
    for name, timings in results.items():
        first, total = (statistics.median(getattr(t, f) for t in timings) for f in ("first_line_s", "total_s"))
        extra = Timing(
            statistics.median(t.first_line_s - b.first_line_s for t, b in zip(timings, bare, strict=True)),
            statistics.median(t.total_s - b.total_s for t, b in zip(timings, bare, strict=True)),
        )
        worst = Timing(max(worst.first_line_s, extra.first_line_s), max(worst.total_s, extra.total_s))
        shown = f"{extra.first_line_s:19.3f} {extra.total_s:12.3f}" if name != "bare" else ""
        print(f"{name:12} {first:12.3f} {total:9.3f} {shown}")
    bars = {
        "extra_first_line_s": bar(worst.first_line_s, FIRST_LINE_BAR_S),
        "extra_total_s": bar(worst.total_s, TOTAL_BAR_S),
    }
    print(json.dumps({"bars": bars}))


def bar(value: float, limit: float) -> dict[str, float | bool]:
    return {"value": round(value, 3), "bar": limit, "met": value <= limit}


@contextmanager
def running_engine(folder: Path) -> Iterator[str]:
    """An engine of its own, on a free port."""
    data_dir = folder / "data"
    mle = Path(sys.executable).with_name("mle")
    subprocess.run(
        [mle, "up", "--detach", "--port", "0", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL
    )
    try:
        yield json.loads((data_dir / "engine.json").read_text())["url"]
    finally:
        subprocess.run([mle, "down", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL)


def warm_runtime_python() -> Path:
    """The interpreter of the runtime, built if it is not yet."""
    import uv

    settings = load_settings()
    cache = RuntimeCache(settings.runtimes_dir, Path(uv.find_uv_bin()))
    return cache.ensure(Catalogue.load().resolve(RUNTIME), print).python


def write_package(folder: Path, nonce: str) -> None:
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "__init__.py").write_text("")
    (folder / "trainer" / "task.py").write_text(TRAINER.format(nonce=nonce))


def make_sdist(folder: Path, nonce: str) -> Path:
    """What `python setup.py sdist` gives for such a project."""
    root = folder / "trainer-0.1"
    write_package(root, nonce)
    (root / "setup.py").write_text(SETUP)
    (root / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: trainer\nVersion: 0.1\n")
    path = folder / "trainer-0.1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root, "trainer-0.1")
    return path


def make_wheel(folder: Path, nonce: str) -> Path:
    write_package(folder, nonce)
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


def run_bare(folder: Path, python: Path, nonce: str) -> Timing:
    """`python -m trainer.task`, with nothing around it."""
    write_package(folder, nonce)
    begin = time.time()
    result = subprocess.run([python, "-m", "trainer.task"], cwd=folder, check=True, capture_output=True, text=True)
    return Timing(first_line_time(result.stdout.splitlines()) - begin, time.time() - begin)


def run_job(client: Client, job_id: str, package: Path) -> Timing:
    """Submit, and wait as a client does. The clock starts when the package is uploaded, before the submit."""
    uri = f"gs://bench/{job_id}/{package.name}"
    client.storage.upload_file(package, ObjectUri.parse(uri))
    body = {
        "jobId": job_id,
        "trainingInput": {"runtimeVersion": RUNTIME, "pythonModule": "trainer.task", "packageUris": [uri]},
    }
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
    lines = [entry["message"] for entry in client.jobs.read_logs(job_id)["entries"]]
    return Timing(first_line_time(lines) - begin, total_s)


def first_line_time(lines: list[str]) -> float:
    line = next(line for line in lines if line.startswith("FIRST LINE "))
    return float(line.rpartition(" ")[2])


if __name__ == "__main__":
    main()
