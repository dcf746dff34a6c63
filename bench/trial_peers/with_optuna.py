"""Optuna running the trainer as a subprocess: what one writes without a service. Called by bench/trial_cost.py.

python with_optuna.py PYTHON FOLDER TRIALS PARALLEL
"""

import json
import sys
import time

import optuna
from one_trial import run_trial


def main() -> None:
    python, folder, trials, parallel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    begin = time.time()
    study.optimize(
        lambda trial: run_trial(python, folder, trial.number, trial.suggest_float("rate", 0.001, 0.1, log=True)),
        n_trials=trials,
        n_jobs=parallel,
    )
    print(json.dumps({"wall_s": time.time() - begin, "trials": len(study.trials)}))


main()
