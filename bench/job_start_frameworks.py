"""Part of job_start.py: submit → the line after `import FRAMEWORK`, cold, warm and pooled, against the bare run.

bare     python -m trainer.task in the runtime's interpreter, the runtime in the page cache
cold     the first job of the runtime on an engine that has just started
warm     a job on an engine without a pool of waiting interpreters
pooled   a job on an engine where an interpreter of the runtime waits
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from enginehouse.sdk.client import Client, connect
from job_start_runs import TRAINER, Timing, make_sdist, run_bare, run_job, running_engine

POOLED_BAR = 0.5
"""Of the bare run's time, for TensorFlow."""
READY_LIMIT_S = 300.0


@dataclass(frozen=True)
class Framework:
    """A runtime and what a trainer on it imports."""

    runtime: str
    python: str
    imports: str

    @property
    def name(self) -> str:
        return f"{self.runtime} on {self.python}"

    @property
    def is_tensorflow(self) -> bool:
        return "tensorflow" in self.imports

    @property
    def trainer(self) -> str:
        return f"{self.imports}\n{TRAINER}"


QUICK = [
    Framework("1.8", "2.7", "import tensorflow"),
    Framework("scikit-learn-1.9", "3.11", "import sklearn.linear_model"),
]
ALL = [
    *QUICK,
    Framework("1.8", "3.6", "import tensorflow"),
    Framework("1.15", "3.7", "import tensorflow"),
    Framework("2.15", "3.11", "import tensorflow"),
    Framework("2.21", "3.11", "import tensorflow"),
    Framework("xgboost-3.2", "3.11", "import xgboost"),
    Framework("pytorch-2.13", "3.11", "import torch"),
    Framework("jax-0.10", "3.11", "import jax"),
]


@dataclass
class Starts:
    """Seconds to the line after the import."""

    bare: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    pooled: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Pooled to bare, the median of pairs; None where nothing waits for the runtime."""
        if not self.pooled:
            return None
        return statistics.median(one / other for one, other in zip(self.pooled, self.bare, strict=True))


def measure(folder: Path, frameworks: list[Framework], pythons: dict[str, Path], rounds: int) -> dict[str, Starts]:
    """By the framework's name; bare, warm and pooled in turn."""
    results = {each.name: Starts() for each in frameworks}
    with (
        running_engine(folder / "without", warm_pool=0) as without_url,
        running_engine(folder / "with", warm_pool=len(frameworks)) as with_url,
    ):
        without, pooled = connect(url=without_url), connect(url=with_url)
        for client in (without, pooled):
            client.storage.create_bucket("bench")
        for framework in frameworks:
            starts = results[framework.name]
            where = folder / framework.name.replace(" ", "_")
            run_bare(where / "first", pythons[framework.name], framework.trainer)
            starts.cold.append(_job(without, where / "cold", framework).first_line_s)
            waits = _make_wait(pooled, where / "pool", framework)
            for index in range(rounds):
                bare = run_bare(where / f"bare{index}", pythons[framework.name], framework.trainer)
                starts.bare.append(bare.first_line_s)
                starts.warm.append(_job(without, where / f"warm{index}", framework).first_line_s)
                if waits:
                    starts.pooled.append(_job(pooled, where / f"pooled{index}", framework).first_line_s)
    return results


def report(results: dict[str, Starts]) -> None:
    """The table."""
    print(
        f"\n{'submit → the line after the import':28} {'bare':>8} {'cold':>8} {'warm':>8} {'pooled':>8} {'ratio':>7}"
    )
    for name, starts in results.items():
        cells = [
            f"{statistics.median(times):8.3f}" if times else f"{'–':>8}"
            for times in (starts.bare, starts.cold, starts.warm, starts.pooled)
        ]
        print(f"{name:28}  {' '.join(cells)} {f'{starts.ratio:7.2f}' if starts.ratio else ''}")


def worst_tensorflow(frameworks: list[Framework], results: dict[str, Starts]) -> float:
    """The highest ratio of a TensorFlow; infinite where none waited for one."""
    ratios = [results[each.name].ratio for each in frameworks if each.is_tensorflow]
    return max(float("inf") if ratio is None else ratio for ratio in ratios)


def _job(client: Client, folder: Path, framework: Framework) -> Timing:
    package = make_sdist(folder, framework.trainer, str(folder))
    job_id = f"start_{folder.parent.name}_{folder.name}".replace(".", "_").replace("-", "_")
    return run_job(client, job_id, package, framework.runtime, framework.python)


def _make_wait(client: Client, folder: Path, framework: Framework) -> bool:
    """Have an interpreter of the runtime wait. Whether one does: not every framework may be forked."""
    _job(client, folder, framework)
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        waiting = [
            each
            for each in client.engine.status()["warmPool"]
            if (each["runtime"], each["python"]) == (framework.runtime, framework.python)
        ]
        if any(each["state"] == "ready" for each in waiting):
            return True
        if not waiting and time.monotonic() > deadline - READY_LIMIT_S + 15:
            return False
        time.sleep(0.2)
    return False
