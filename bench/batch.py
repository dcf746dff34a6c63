"""Batch prediction against the bare framework loop on the same file: `python bench/batch.py [--quick] [NAME…]`.

Our side is a job on a real engine (`mle up`): the rows lie in a bucket as CSV and the predictions are written there.
The other is `batch_loop.py`, one process with the same framework on local files, started anew. Both are timed as a
whole, from the start of the process or the submission of the job to the last prediction. The predictions are
compared. Memory is that of all processes of the job together, at a tenth of the rows and at all of them.

Everything runs on two cores, so that figures of larger machines can be compared. Workers are judged twice:

* two over one as a user gets them: whole jobs, where one worker has the threads of both cores. Never below 0.95: a
  framework may use both cores in one worker already, and a short job is mostly the framework's import, so nothing
  above 1 can be promised; but a second worker must do no harm beyond what two runs of one job differ by;
* two on two cores over one with one thread on one core, the scaling proper. The engine is bound like its job, since
  it hands out the rows and takes the predictions. Rows/s from the moment that the first worker has the model, as the
  job's log tells: the import is left out. The bar is 1.6: 2 less what can't be shared out, the search of each worker
  for its batch size, and the wait for the last split. Beside it stands what the machine has to give
  (`two_loops_over_one`: two bare loops at once, each on a core and with all rows for itself), since virtual cores are
  often less than whole ones. --quick leaves all this out: it predicts for half a second, which is too short.

Both need a machine with nothing else to do: Linux shares contended cores out by session (sched_autogroup), and all
workers of a job are in one, so that two of them get no more than one does.

The last line of stdout is one JSON object with the bars.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uv

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess

LOOP = Path(__file__).with_name("batch_loop.py")
ONE_WORKER_BAR = 0.8
FLAT_BAR = 1.25
TWO_WORKERS_BAR = 0.95
SCALING_BAR = 1.6
ROUNDS = {False: 3, True: 1}
CORES = sorted(os.sched_getaffinity(0))[:2]
_SAMPLE_S = {"rows": 0.5, "tenth": 0.05}
"""The tenth is predicted in less time than lies between two looks at the whole, and is not timed."""


@dataclass(frozen=True)
class Case:
    """One model, and how many rows it predicts."""

    framework: str
    runtime: str
    rows: int
    quick_rows: int


CASES = {
    "scikit-learn": Case("SCIKIT_LEARN", "scikit-learn-1.9", 10_000_000, 1_500_000),
    "xgboost": Case("XGBOOST", "xgboost-3.2", 10_000_000, 500_000),
    "keras": Case("TENSORFLOW", "2.21", 1_000_000, 300_000),
}


class Watch(threading.Thread):
    """Peak of the memory of a job's processes, shared pages counted once (PSS), and the CPU time they took.

    Looks seldom where times count: what it takes itself the job does not get.
    """

    def __init__(self, output_path: Any, every_s: float) -> None:
        super().__init__(daemon=True)
        self._every_s = every_s
        self._mark = json.dumps(output_path).encode()
        self._over = threading.Event()
        self._before = set(_pids())
        self._cpu_s: dict[int, float] = {}
        self.peak_mib = 0.0

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            self.peak_mib = max(self.peak_mib, sum(map(self._pss_mib, self._processes())))

    def _processes(self) -> list[int]:
        return [pid for pid in _pids() if pid not in self._before and self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:  # anew each time: a process may be about to become the job's
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return self._mark in command and b"enginehouse_batch" in command

    def _pss_mib(self, pid: int) -> float:
        try:
            times = psutil.Process(pid).cpu_times()
            self._cpu_s[pid] = times.user + times.system
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
        except (psutil.Error, OSError):
            return 0.0

    def stop(self) -> tuple[float, float]:
        """The peak in MiB, and the CPU seconds."""
        self._over.set()
        self.join()
        return self.peak_mib, sum(self._cpu_s.values())


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


@dataclass(frozen=True)
class Prepared:
    """A case whose model and rows lie in the bucket."""

    case: Case
    rows: int
    folder: Path
    loop: list[Any]


def interpreters(names: Iterable[str]) -> dict[str, Path]:
    """Those of the cases' runtimes, which are built if they are not there yet."""
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))
    catalogue = Catalogue.load()

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    return {name: cache.ensure(catalogue.resolve(CASES[name].runtime, None), tell).python for name in names}


def prepare(case: Case, python: Path, *, quick: bool, engine: EngineProcess, folder: Path) -> Prepared:
    """Make a case. Nothing here is timed, so that several may be made at once."""
    rows = case.quick_rows if quick else case.rows
    name = folder.name
    (folder / "model").mkdir(parents=True)
    subprocess.run([python, LOOP, "make", case.framework, folder / "model", str(rows)], check=True, stderr=sys.stderr)
    client = connect(data_dir=engine.data_dir)
    for path in (folder / "model").rglob("*"):
        if path.is_file():
            target = ObjectUri("bench", f"{name}/model/{path.relative_to(folder / 'model')}")
            client.storage.upload_file(path, target)
    client.storage.upload_file(folder / "rows.csv", ObjectUri("bench", f"{name}/rows.csv"))
    tenth = folder / "tenth.csv"
    with tenth.open("wb") as target_file, (folder / "rows.csv").open("rb") as source:
        for _ in range(rows // 10):
            target_file.write(source.readline())
    client.storage.upload_file(tenth, ObjectUri("bench", f"{name}/tenth.csv"))
    return Prepared(case, rows, folder, [python, LOOP, "run", case.framework, folder / "model"])


@dataclass(frozen=True)
class Taken:
    """What one run took; `rows_per_s` is of its predicting alone."""

    seconds: float
    cpu_s: float
    peak_mib: float = 0.0
    rows_per_s: float = 0.0


def measure(prepared: Prepared, *, quick: bool, engine: EngineProcess) -> dict[str, Any]:
    """Figures of one case."""
    name, rows = prepared.folder.name, prepared.rows
    client = connect(data_dir=engine.data_dir)
    job = functools.partial(run_job, client, engine, prepared.case, name)
    small = job("tenth", workers=1, turn=0)
    rounds, scalings = [], []
    for turn in range(ROUNDS[quick]):  # in turn, so that a busy moment of the machine meets all
        loop = run_loop(prepared, "alone")
        one = job("rows", workers=1, turn=turn)
        two = job("rows", workers=2, turn=turn)
        rounds.append((loop, one, two))
        if not quick:
            bound, loops_rows_per_s = run_bound(prepared, engine, job, turn)
            scalings.append((two.rows_per_s / bound.rows_per_s, loops_rows_per_s / loop.rows_per_s))
    for kind in ("free-1", "free-2") if quick else ("free-1", "free-2", "bound-1"):
        check(client, f"{name}/out-rows-{kind}/", prepared.folder / "alone.txt")

    loop_s, one_s, two_s = (statistics.median(sides[side].seconds for sides in rounds) for side in range(3))
    figures = {
        "rows": rows,
        "loop_rows_per_s": round(rows / loop_s),
        "one_worker_rows_per_s": round(rows / one_s),
        "two_workers_rows_per_s": round(rows / two_s),
        "one_worker_over_loop": median(loop.seconds / one.seconds for loop, one, _ in rounds),
        "the_same_in_cpu_time": median(loop.cpu_s / one.cpu_s for loop, one, _ in rounds),
        "two_workers_over_one": median(one.seconds / two.seconds for _, one, two in rounds),
        "cpu_time_of_one_over_two": median(one.cpu_s / two.cpu_s for _, one, two in rounds),
        "peak_mib_at_a_tenth": round(small.peak_mib),
        "peak_mib": round(max(one.peak_mib for _, one, _ in rounds)),
        "two_workers_peak_mib": round(max(two.peak_mib for _, _, two in rounds)),
    }
    if scalings:
        figures["two_cores_over_one"] = median(cores for cores, _ in scalings)
        figures["two_loops_over_one"] = median(loops for _, loops in scalings)
    return figures


def run_bound(prepared: Prepared, engine: EngineProcess, job: Callable[..., Taken], turn: int) -> tuple[Taken, float]:
    """A job whose worker and engine share one core; and the rows/s of two loops at once, with a core each."""
    bind(engine, CORES[:1])
    bound = job("rows", workers=1, turn=turn, kind="bound")
    bind(engine, CORES)
    with ThreadPoolExecutor(2) as pool:
        loops = pool.map(lambda core: run_loop(prepared, f"beside-{core}", core), CORES)
        return bound, sum(loop.rows_per_s for loop in loops)


def bind(engine: EngineProcess, cores: list[int]) -> None:
    """Let the engine and what it will start run on these cores alone."""
    pid = json.loads((engine.data_dir / "engine.json").read_text())["pid"]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)


def median(ratios: Iterable[float]) -> float:
    """Of the rounds' ratios."""
    return round(statistics.median(ratios), 2)


def run_loop(prepared: Prepared, output: str, core: int | None = None) -> Taken:
    """The bare loop, once, with one thread; the CPU time is right where nothing else was started meanwhile."""
    command = [*prepared.loop, prepared.folder / f"{output}.txt"]
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        command, check=True, env={**os.environ, **threads}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, cpu_s, rows_per_s=float(done.stdout))


def run_job(
    client: Client,
    engine: EngineProcess,
    case: Case,
    name: str,
    rows: str,
    *,
    workers: int,
    turn: int,
    kind: str = "free",
) -> Taken:
    """One job, from its submission to its end."""
    job_id = f"{name.replace('-', '_')}_{rows}_{kind}_{workers}_{turn}"
    spec = {
        "uri": f"gs://bench/{name}/model",
        "runtimeVersion": case.runtime,
        "dataFormat": "CSV",
        "inputPaths": [f"gs://bench/{name}/{rows}.csv"],
        "outputPath": f"gs://bench/{name}/out-{rows}-{kind}-{workers}",
        "maxWorkerCount": str(workers),
        "region": "us-central1",
    }
    watch = Watch(spec["outputPath"], _SAMPLE_S[rows])
    watch.start()
    began = time.perf_counter()
    client.jobs.create({"jobId": job_id, "predictionInput": spec})
    log = ""
    page: dict[str, Any] = {"ended": False, "cursor": ""}
    while not page["ended"]:  # asks less of the engine than looking at the job again and again
        page = client.jobs.read_logs(job_id, page["cursor"], wait_s=30)
        log += "".join(entry["message"] + "\n" for entry in page["entries"])
    seconds = time.perf_counter() - began
    peak_mib, cpu_s = watch.stop()
    job = client.jobs.get(job_id)
    if job["state"] != "SUCCEEDED" or job["predictionOutput"]["errorCount"] != "0":
        raise SystemExit(f"{job_id}: {job}")
    rates = re.findall(r"([\d,]+) instances/s", log)
    return Taken(seconds, cpu_s, peak_mib, float(rates[-1].replace(",", "")))


def check(client: Client, prefix: str, expected: Path) -> None:
    """Compare the shards with what the loop predicted; float32 arithmetic differs in the last digits."""
    shards = sorted(
        (each for each in client.storage.list("bench", prefix) if "results" in each.uri.name),
        key=lambda each: each.uri.name,
    )
    text = b"".join(piece for shard in shards for piece in client.storage.read(shard))
    if text == expected.read_bytes():
        return
    ours, theirs = numbers(text), numbers_in(expected)
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-3):
        raise SystemExit(f"the predictions differ: {prefix}")


def numbers(lines: bytes) -> Any:
    """Predictions as an array."""
    return np.array(json.loads(b"[" + lines.strip().replace(b"\n", b",") + b"]"), dtype=float)


@functools.cache
def numbers_in(path: Path) -> Any:
    """The same of a file that stays as it is."""
    return numbers(path.read_bytes())


def main() -> int:
    """Measure, print a table and the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, one round, no scaling proper")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all by default")
    arguments = parser.parse_args()
    if len(CORES) < 2:
        raise SystemExit("this takes two cores")
    os.sched_setaffinity(0, CORES)
    figures = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-batch-") as scratch,
        EngineProcess(Path(scratch) / "data") as engine,
    ):
        connect(data_dir=engine.data_dir).storage.create_bucket("bench")
        names = arguments.names or list(CASES)
        pythons = interpreters(names)
        with ThreadPoolExecutor(len(names)) as pool:

            def made(name: str) -> Prepared:
                folder = Path(scratch) / name
                return prepare(CASES[name], pythons[name], quick=arguments.quick, engine=engine, folder=folder)

            cases = dict(zip(names, pool.map(made, names), strict=True))
        for name in names:
            figures[name] = measure(cases[name], quick=arguments.quick, engine=engine)
            print(f"{name:13}" + "  ".join(f"{key} {value:,}" for key, value in figures[name].items()), flush=True)
    bars = {}
    for name, values in figures.items():
        growth = round(values["peak_mib"] / values["peak_mib_at_a_tenth"], 2)
        judged = [
            ("one worker over the loop", values["one_worker_over_loop"], ONE_WORKER_BAR),
            ("two workers over one", values["two_workers_over_one"], TWO_WORKERS_BAR),
        ]
        if not arguments.quick:
            judged.append(("two cores over one", values["two_cores_over_one"], SCALING_BAR))
        for what, value, bar in judged:
            bars[f"{name}, {what}"] = {"value": value, "bar": bar, "met": value >= bar}
        bars[f"{name}, memory over a tenth of the rows"] = {
            "value": growth,
            "bar": FLAT_BAR,
            "met": growth <= FLAT_BAR,
        }
    print(json.dumps({"bars": bars}))
    return 0 if all(bar["met"] for bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
