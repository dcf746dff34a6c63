"""How much the engine adds to a training job: submit → first line of user code, and → SUCCEEDED.

Both sides run the same trainer in the same interpreter: once as a job on a running engine with a warm runtime, once
as the bare `python -m trainer.task`, in turn. Each job brings a package that the engine has never seen (its content
differs), so that installing it is part of what is measured; a second row repeats one package, as a re-submit does.
Then the same for each framework (job_start_frameworks.py) and for the chapter's job (job_start_chapter.py).

    python bench/job_start.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import job_start_chapter as chapter
import job_start_frameworks as frameworks
from enginehouse.sdk.client import connect
from job_start_runs import TRAINER, Timing, make_sdist, make_wheel, run_bare, run_job, running_engine, runtime_python

RUNTIME = "scikit-learn-1.9"
FIRST_LINE_BAR_S = 0.5
TOTAL_BAR_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, frameworks and steps, about a minute")
    quick = parser.parse_args().quick
    chosen = frameworks.QUICK if quick else frameworks.ALL
    pythons = {each.name: runtime_python(each.runtime, each.python) for each in chosen}
    steps = 1000 if quick else 5000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = measure(folder / "added", 3 if quick else 15)
        starts = frameworks.measure(folder / "frameworks", chosen, pythons, 3 if quick else 7)
        times = chapter.measure(
            folder / "chapter", runtime_python("1.8", "2.7"), steps=steps, rounds=1 if quick else 3
        )
    worst = report(results)
    frameworks.report(starts)
    chapter.report(times, steps)
    bars = {
        "extra_first_line_s": bar(worst.first_line_s, FIRST_LINE_BAR_S),
        "extra_total_s": bar(worst.total_s, TOTAL_BAR_S),
        "pooled_tensorflow_ratio": bar(frameworks.worst_tensorflow(chosen, starts), frameworks.POOLED_BAR),
        "chapter_job_ratio": bar(times.ratio, chapter.BAR),
    }
    print(json.dumps({"bars": bars}))


def measure(folder: Path, rounds: int) -> dict[str, list[Timing]]:
    """One warm-up, then `rounds` times each variant, in turn."""
    with running_engine(folder / "data") as url:
        return measure_on(folder, url, rounds)


def measure_on(folder: Path, url: str, rounds: int) -> dict[str, list[Timing]]:
    """The same on a running engine."""
    client = connect(url=url)
    client.storage.create_bucket("bench")
    python = runtime_python(RUNTIME)
    nonce = f"{os.getpid()}-{time.time_ns()}"
    makers: dict[str, Callable[[int], Path]] = {
        "new wheel": lambda i: make_wheel(folder / f"w{i}", TRAINER, f"{nonce}-w{i}"),
        "new sdist": lambda i: make_sdist(folder / f"s{i}", TRAINER, f"{nonce}-s{i}"),
        "same sdist": lambda i: make_sdist(folder / f"r{i}", TRAINER, f"{nonce}-repeated"),
    }
    results: dict[str, list[Timing]] = {name: [] for name in ["bare", *makers]}
    for index in range(rounds + 1):
        round_results = {"bare": run_bare(folder / f"bare{index}", python, TRAINER, nonce)}
        for name, make in makers.items():
            job_id = f"bench_{name.replace(' ', '_')}_{index}"
            round_results[name] = run_job(client, job_id, make(index), RUNTIME)
        if index:  # the first round warms caches on both sides
            for name, timing in round_results.items():
                results[name].append(timing)
    return results


def report(results: dict[str, list[Timing]]) -> Timing:
    """The table; returns the most that was added. Extra seconds are medians of differences to the bare run."""
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
    return worst


def bar(value: float, limit: float) -> dict[str, float | bool]:
    return {"value": round(value, 3), "bar": limit, "met": value <= limit}


if __name__ == "__main__":
    main()
