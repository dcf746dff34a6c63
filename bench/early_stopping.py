"""What rules for early stopping save and what they lose: `python bench/early_stopping.py [--quick] [--studies N]`.

Studies of 30 trials, 3 at a time, on three families of learning curves (enginehouse/testing/learning_curves.py), a
seed for each study from 0 on. "Saved" is the share of the steps that were not run, "lost" the share of the studies in
which the trial was stopped that would have ended best. The bars are for the decay curve rule, over all families: at
least 30 % saved, at most 2 % lost.

The last line of stdout is one JSON object with the bars.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from enginehouse.testing.learning_curves import FAMILIES, run_study

RULES: dict[str, dict[str, Any]] = {
    "decay curve": {"decayCurveStoppingConfig": {}},
    "median": {"medianAutomatedStoppingConfig": {}},
    "halving by 3": {"successiveHalvingStoppingConfig": {}},
}
SAVED_BAR = 0.3
LOST_BAR = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 studies of each: under a minute")
    parser.add_argument("--studies", type=int, default=200, help="of each family and rule")
    args = parser.parse_args()
    seeds = range(4 if args.quick else args.studies)
    print(f"{len(seeds)} studies of each family\n\n{'rule':14}{'family':14}{'saved':>8}{'lost':>8}")
    means: dict[str, tuple[float, float]] = {}
    for rule, stopping in RULES.items():
        saved, lost = [], []
        for family in FAMILIES:
            outcomes = [run_study(family, stopping, seed=seed) for seed in seeds]
            saved.append(statistics.fmean(outcome.saved for outcome in outcomes))
            lost.append(statistics.fmean(outcome.lost for outcome in outcomes))
            print(f"{rule:14}{family:14}{saved[-1]:8.1%}{lost[-1]:8.1%}", flush=True)
        means[rule] = statistics.fmean(saved), statistics.fmean(lost)
    saved_mean, lost_mean = means["decay curve"]
    bars = {
        "steps saved by decay curves": {
            "value": round(saved_mean, 4),
            "bar": SAVED_BAR,
            "met": saved_mean >= SAVED_BAR,
        },
        "studies whose best trial was stopped": {
            "value": round(lost_mean, 4),
            "bar": LOST_BAR,
            "met": lost_mean <= LOST_BAR,
        },
    }
    print(json.dumps({"bars": bars}))


if __name__ == "__main__":
    main()
