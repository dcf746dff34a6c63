"""How good the suggestions of tuning algorithms are: `python bench/tuning_quality.py [--quick] [--seeds N] ...`.

Ours (what a study gets that names no algorithm) against random search and Optuna's TPE and GPSampler, on 18
objectives (tuning/objectives.py): test functions of 2 to 10 dimensions, spaces of mixed types, with categories, with
conditional parameters, with noise, and three tabled from real training. Every algorithm runs the same instance of an
objective for a seed, one trial after the other and in batches of 4.

OSS Vizier's default algorithm takes part if it is named (`--algorithms ours,random,GPSampler,Vizier`): it needs
seconds for a suggestion.

The regret of a study at a budget is that of the trial that looks best by then, without noise: 0 is the optimum, 1 the
median random point. Ranks are among all algorithms on one instance, with regrets that differ by less than 0.001
taken as equal; intervals are 95 % bootstrap intervals over studies. At each budget those studies count that all
algorithms ran so far: with --trials 50, fewer are run for the last one.

Studies run in 2 processes with one thread each. Results are kept, a line a study, below --cache, so a run goes on
where it was stopped and peers aren't run again; ours are kept by the contents of its source files. Peers get a
virtual environment, made once in the cache. The whole run takes about SEEDS x 15 minutes of two cores, most of it
GPSampler's.

The last line of stdout is one JSON object with the bars.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from environments import environment_python

HERE = Path(__file__).parent
WORKER = HERE / "tuning" / "worker.py"
SOURCES = HERE.parent / "src" / "enginehouse" / "tuning"
BUDGETS = (10, 20, 50, 100)
MODES = {"sequential": 1, "batches of 4": 4}
OURS, RANDOM, PEER = "ours", "random", "GPSampler"
OPTUNA = ["optuna==5.0.0", "cmaes==0.13.1", "torch==2.13.0", "numpy==2.4.6", "scipy==1.17.1"]
# Its requirements are wide, and it works with few of the versions that they allow.
VIZIER = ["google-vizier[jax]==0.1.24", "jax==0.4.35", "jaxlib==0.4.35", "scipy==1.14.1", "numpy==2.2.6"]
ENVIRONMENTS = {"TPE": OPTUNA, PEER: OPTUNA, "Vizier": VIZIER}
EQUAL = 0.001
REGRET_BAR = 0.8
SUGGEST_BAR_S = 0.1
RESAMPLES = 1000

Key = tuple[str, str, int, int]
"""Algorithm, objective, seed, batch."""


@dataclass
class Results:
    """What studies gave, in memory and on the disk."""

    cache_dir: Path
    versions: dict[str, str]
    found: dict[Key, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        for algorithm in self.versions:
            path = self._path(algorithm)
            for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
                with contextlib.suppress(ValueError):  # cut off when a run was killed
                    self._keep(algorithm, json.loads(line))

    def add(self, algorithm: str, line: str) -> None:
        with self._lock:
            self._keep(algorithm, json.loads(line))
            with self._path(algorithm).open("a", encoding="utf-8") as file:
                file.write(line.rstrip("\n") + "\n")

    def _keep(self, algorithm: str, result: dict[str, Any]) -> None:
        key = (algorithm, result["objective"], result["seed"], result["batch"])
        if key not in self.found or result["trials"] >= self.found[key]["trials"]:
            self.found[key] = result

    def _path(self, algorithm: str) -> Path:
        return self.cache_dir / f"{algorithm}-{self.versions[algorithm]}.jsonl"


# --- environments ---


def python_for(algorithm: str) -> str:
    """The interpreter that has the algorithm."""
    wanted = ENVIRONMENTS.get(algorithm)
    if wanted is None:
        return sys.executable
    return str(environment_python("tuning", wanted))


def version_of(algorithm: str) -> str:
    if algorithm in ENVIRONMENTS:
        return ENVIRONMENTS[algorithm][0].split("==")[1]
    if algorithm != OURS:
        return "1"
    sources = [*sorted((SOURCES / "algorithms").rglob("*.py")), SOURCES / "search.py", SOURCES / "space.py"]
    contents = b"".join(path.read_bytes() for path in sources)
    return hashlib.sha256(contents).hexdigest()[:12]


def environment() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return kept | threads


# --- running ---


def run_all(tasks: list[Key], results: Results, trials: int, processes: int) -> None:
    """Go through the tasks, some at a time."""
    waiting, lock, start, total = list(reversed(tasks)), threading.Lock(), time.monotonic(), len(tasks)

    def work() -> None:
        workers: dict[str, subprocess.Popen[str]] = {}
        try:
            while True:
                with lock:
                    if not waiting:
                        return
                    algorithm, objective, seed, batch = waiting.pop()
                    left = len(waiting)
                if algorithm not in workers:
                    command = [
                        python_for(algorithm),
                        str(WORKER),
                        algorithm,
                        str(results.cache_dir),
                    ]
                    workers[algorithm] = subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
                    )
                stdin, stdout = workers[algorithm].stdin, workers[algorithm].stdout
                assert stdin is not None and stdout is not None
                task = {"objective": objective, "seed": seed, "batch": batch, "trials": trials}
                stdin.write(json.dumps(task) + "\n")
                stdin.flush()
                line = stdout.readline()
                if not line:
                    raise RuntimeError(f"{algorithm} failed on {objective}, seed {seed}; see above.")
                results.add(algorithm, line)
                if left % 20 == 0:
                    spent = time.monotonic() - start
                    print(f"{total - left} of {total} studies, {spent:.0f} s", file=sys.stderr, flush=True)
        finally:
            for worker in workers.values():
                worker.kill()
                worker.wait()

    with ThreadPoolExecutor(processes) as pool:
        for done in [pool.submit(work) for _ in range(processes)]:
            done.result()


# --- judging ---


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Figure:
        rng = random.Random(0)
        means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
        return cls(statistics.fmean(values), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)])

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f}-{self.high:.3f})"


def ranks(regrets: dict[str, float]) -> dict[str, float]:
    """1 for the least; those that differ by less than EQUAL from the first of a group share its mean rank."""
    ordered = sorted(regrets, key=lambda name: regrets[name])
    shared: dict[str, float] = {}
    start = 0
    while start < len(ordered):
        end = start + 1
        while end < len(ordered) and regrets[ordered[end]] - regrets[ordered[start]] < EQUAL:
            end += 1
        shared |= dict.fromkeys(ordered[start:end], (start + 1 + end) / 2)
        start = end
    return shared


def report(
    results: Results, algorithms: list[str], names: list[str], seeds: list[int], trials: int
) -> dict[str, Any]:
    """Print the tables of what is there, up to a number of trials; the bars."""
    bars: dict[str, Any] = {}
    for mode, batch in MODES.items():
        regrets: dict[tuple[str, int], list[float]] = {}
        places: dict[tuple[str, int], list[float]] = {}
        by_name: dict[tuple[str, str, int], list[float]] = {}
        for name, seed in product(names, seeds):
            found = [results.found.get((a, name, seed, batch), {"regrets": []})["regrets"] for a in algorithms]
            for budget, reached in zip(BUDGETS, zip(*found, strict=False), strict=False):
                if budget > trials:
                    break
                now = dict(zip(algorithms, reached, strict=True))
                for a, rank in ranks(now).items():
                    regrets.setdefault((a, budget), []).append(now[a])
                    places.setdefault((a, budget), []).append(rank)
                    by_name.setdefault((a, name, budget), []).append(now[a])
        if not regrets:
            continue
        budgets = [budget for budget in BUDGETS if (algorithms[0], budget) in regrets]
        studies = " / ".join(str(len(regrets[(algorithms[0], budget)])) for budget in budgets)
        head = "".join(f"{f'at {budget}':>22}" for budget in budgets)
        for title, values in (("normalised regret", regrets), ("rank", places)):
            print(f"\nMean {title}, {mode}, {studies} studies\n{'':14}{head}")
            for a in algorithms:
                print(f"{a:14}" + "".join(f"{Figure.of(values[(a, budget)])!s:>22}" for budget in budgets))
        print(f"\nMean normalised regret at {' / '.join(map(str, budgets))} by objective, {mode}")
        for name in names:
            cells = []
            for a in algorithms:
                means = [statistics.fmean(by_name[key]) for b in budgets if (key := (a, name, b)) in by_name]
                cells.append(f"{a} " + " / ".join(f"{mean:.3f}" for mean in means))
            print(f"{name:28}" + "   ".join(cells))
        if OURS in algorithms and len(algorithms) > 1:
            bars |= mode_bars(mode, algorithms, budgets, regrets, places)
    # Of the longest studies, since a suggestion costs more with each trial.
    ours = [r for (a, _, _, _), r in results.found.items() if a == OURS]
    if ours:
        longest = max(r["trials"] for r in ours)
        times = [r["suggest_s"] for r in ours if r["trials"] == longest]
        bars[f"seconds of CPU for a suggestion at trial {longest}, mean"] = bar(
            statistics.fmean(times), SUGGEST_BAR_S
        )
    return bars


def mode_bars(
    mode: str,
    algorithms: list[str],
    budgets: list[int],
    regrets: dict[tuple[str, int], list[float]],
    places: dict[tuple[str, int], list[float]],
) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for budget in budgets:
        mean = {a: statistics.fmean(places[(a, budget)]) for a in algorithms}
        best_other = min(rank for a, rank in mean.items() if a != OURS)
        bars[f"mean rank at {budget}, {mode}, below the best other"] = bar(mean[OURS], best_other)
        ours = statistics.fmean(regrets[(OURS, budget)])
        if RANDOM in algorithms:
            bars[f"regret at {budget}, {mode}, against random"] = bar(
                ours, statistics.fmean(regrets[(RANDOM, budget)])
            )
        if PEER in algorithms and budget in (20, 50):
            ratio = ours / statistics.fmean(regrets[(PEER, budget)])
            bars[f"regret at {budget}, {mode}, times GPSampler's"] = bar(ratio, REGRET_BAR)
    return bars


def bar(value: float, most: float) -> dict[str, Any]:
    return {"value": round(value, 4), "bar": round(most, 4), "met": value <= most}


# --- the command ---


def main() -> None:
    args = arguments()
    algorithms = args.algorithms.split(",") if args.algorithms else [OURS, RANDOM, "TPE", PEER]
    cache_dir = args.cache or Path.home() / ".cache" / "enginehouse" / "bench" / "tuning"
    cache_dir.mkdir(parents=True, exist_ok=True)
    results = Results(cache_dir, {algorithm: version_of(algorithm) for algorithm in algorithms})
    results.load()
    objectives = load_objectives()
    names = list(objectives.objectives(cache_dir))
    if args.quick:
        names = ["branin 2d", "mixed network", "conditional models"]
    elif args.objectives:
        names = [name for name in names if any(part in name for part in args.objectives.split(","))]
    if not args.quick:
        objectives.fill_tables(cache_dir)
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    batches = [batch for mode, batch in MODES.items() if args.modes in ("", mode)]
    # The peers' environments are made before two threads want them.
    for algorithm in algorithms:
        python_for(algorithm)
    tasks = [
        (algorithm, name, seed, batch)
        for seed, name, batch, algorithm in product(seeds, names, batches, algorithms)
        if results.found.get((algorithm, name, seed, batch), {"trials": 0})["trials"] < args.trials
    ]
    if not args.report:
        run_all(tasks, results, args.trials, args.processes)
    print(json.dumps({"bars": report(results, algorithms, names, seeds, args.trials)}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 objectives, 1 seed, 20 trials: under a minute")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=BUDGETS[-1])
    parser.add_argument("--algorithms", default="", help="of ours, random, quasi-random, TPE, GPSampler, Vizier")
    parser.add_argument("--objectives", default="", help="parts of names, with commas; all if left out")
    parser.add_argument("--modes", default="", choices=["", *MODES])
    parser.add_argument("--report", action="store_true", help="run nothing, judge what is in the cache")
    parser.add_argument("--cache", type=Path, help="where results, tables and environments are kept")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    known = {OURS, RANDOM, "quasi-random", *ENVIRONMENTS}
    if unknown := set(filter(None, args.algorithms.split(","))) - known:
        parser.error(f"--algorithms: {', '.join(sorted(unknown))} is none of {', '.join(sorted(known))}")
    if args.quick:
        args.seeds, args.trials = 1, 20
    return args


def load_objectives() -> Any:
    """tuning/objectives.py; by its path, since this directory has a queue.py that would hide Python's own."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE.resolve()]
    spec = importlib.util.spec_from_file_location("objectives", HERE / "tuning" / "objectives.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["objectives"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
