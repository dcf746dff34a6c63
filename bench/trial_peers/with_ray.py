"""Ray Tune running the trainer as a subprocess in each trial. Called by bench/trial_cost.py.

Its cluster is started before the clock is, as the engine is.

    python with_ray.py PYTHON FOLDER TRIALS PARALLEL
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # a busy machine
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
here = str(Path(__file__).resolve().parent)

import ray  # noqa: E402
from ray import tune  # noqa: E402


def main() -> None:
    python, folder, trials, parallel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

    def trainable(config):  # type: ignore[no-untyped-def]
        sys.path.insert(0, here)
        from one_trial import run_trial

        return {"accuracy": run_trial(python, folder, os.getpid(), config["rate"])}

    ray.init(num_cpus=parallel, include_dashboard=False, log_to_driver=False)
    begin = time.time()
    tuner = tune.Tuner(
        trainable,
        param_space={"rate": tune.loguniform(0.001, 0.1)},
        tune_config=tune.TuneConfig(metric="accuracy", mode="max", num_samples=trials),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    )
    results = tuner.fit()
    wall_s = time.time() - begin
    assert not results.errors, results.errors
    print(json.dumps({"wall_s": wall_s, "trials": len(results)}))
    ray.shutdown()


main()
