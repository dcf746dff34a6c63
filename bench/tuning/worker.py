"""Runs studies for bench/tuning_quality.py: `python worker.py ALGORITHM CACHE_DIR`, in whichever environment has
the algorithm.

A line of stdin is a study, `{"objective": NAME, "seed": N, "batch": 1 or 4, "trials": N}`; a line of stdout is its
result.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from objectives import Objective, objectives

BUDGETS = (10, 20, 50, 100)
MODULES = {
    "ours": "our_asker",
    "random": "our_asker",
    "quasi-random": "our_asker",
    "TPE": "optuna_asker",
    "GPSampler": "optuna_asker",
    "Vizier": "vizier_asker",
}


class Asker(Protocol):
    """An algorithm on one study."""

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """Numbers and values for `count` trials that go on from now."""
        ...

    def tell(self, number: int, cost: float) -> None:
        """The end of one of them."""
        ...


def run(asker: Asker, objective: Objective, *, seed: int, batch: int, trials: int) -> dict[str, Any]:
    """One study.

    Returns:
        regrets: at each budget up to the number of trials, of the trial that looks best by then, without noise.
        suggest_s: CPU seconds of a suggestion, the mean over the last ten trials.
    """
    reference = objective.reference(seed)
    noise = np.random.default_rng([seed, 31])
    best_seen, regret = np.inf, 1.0
    regrets: list[float] = []
    seconds: list[float] = []
    done = 0
    while done < trials:
        count = min(batch, trials - done)
        start = time.process_time()
        asked = asker.ask(count)
        seconds += [(time.process_time() - start) / count] * count
        for number, values in asked:
            cost = objective.cost(values)
            seen = cost + noise.normal() * objective.noise * (reference - objective.best)
            asker.tell(number, float(seen))
            if seen < best_seen:
                best_seen, regret = seen, objective.regret(cost, reference)
            done += 1
            if done in BUDGETS:
                regrets.append(regret)
    return {"regrets": regrets, "suggest_s": float(np.mean(seconds[-10:]))}


def main() -> None:
    algorithm, cache_dir = sys.argv[1], Path(sys.argv[2])
    make = import_module(MODULES[algorithm]).make
    all_objectives = objectives(cache_dir)
    for line in sys.stdin:
        task = json.loads(line)
        objective = all_objectives[task["objective"]](task["seed"])
        asker = make(algorithm, objective.parameters, task["seed"], task["batch"])
        result = run(asker, objective, seed=task["seed"], batch=task["batch"], trials=task["trials"])
        print(json.dumps(task | result), flush=True)


if __name__ == "__main__":
    main()
