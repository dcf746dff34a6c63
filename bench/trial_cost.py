"""What a trial costs above its own training: a tuning job against Ray Tune and Optuna with subprocesses.

All run the same `python -m trainer.task`, in the same interpreter, as many at a time. The trainer trains for two
seconds and reports its metric; a second one imports TensorFlow before that, which is what most trials begin with.
The ideal is the time of the training alone. Peers are installed, once, into an environment of their own.

    python bench/trial_cost.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import SETTINGS
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import make_sdist
from environments import environment_python
from job_start_runs import SETUP, running_engine, runtime_python

TRAINING_S = 2.0
PARALLEL = 2
PEERS = ["optuna==5.0.0", "ray[tune]==2.60.0"]
PEERS_DIR = Path(__file__).parent / "trial_peers"
TRAINERS = {"plain": ("scikit-learn-1.9", ""), "TensorFlow": ("2.21", "import tensorflow as tf\n")}
TRAINER = """\
import argparse, json, os, time
{prologue}
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float)
parser.add_argument("--job-dir")
arguments = parser.parse_args()
time.sleep({training_s})
with open(os.environ["CLOUD_ML_HP_METRIC_FILE"], "a") as file:
    file.write(json.dumps({{"global_step": "1", "timestamp": time.time(), "accuracy": repr(arguments.rate)}}) + "\\n")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few trials of the plain trainer, under a minute")
    quick = parser.parse_args().quick
    trials = 6 if quick else 20
    peers_python = environment_python("trial-cost", PEERS)
    pooled = any(setting.name == "warm_pool" for setting in SETTINGS)
    walls: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, running_engine(Path(folder) / "data") as url:
        client = connect(url=url)
        client.storage.create_bucket("bench")
        for name in ["plain"] if quick else TRAINERS:
            walls[name] = measure(client, Path(folder) / name, name, peers_python, trials)
    report(walls, trials, pooled=pooled)


def measure(client: Client, folder: Path, name: str, peers_python: Path, trials: int) -> dict[str, float]:
    """Seconds of each contender for all trials of a trainer, each warmed up by two trials of its own."""
    runtime, prologue = TRAINERS[name]
    source = TRAINER.format(prologue=prologue, training_s=TRAINING_S)
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "__init__.py").write_text("")
    (folder / "trainer" / "task.py").write_text(source)
    (folder / "setup.py").write_text(SETUP)
    python = runtime_python(runtime)
    walls = {}
    for count in (2, trials):  # the first round warms caches on all sides
        walls = {
            "enginehouse": run_job(client, f"cost_{name}_{count}", runtime, source, count),
            "Optuna": run_peer(peers_python, "with_optuna.py", python, folder, count),
            "Ray Tune": run_peer(peers_python, "with_ray.py", python, folder, count),
        }
    return walls


def run_job(client: Client, job_id: str, runtime: str, source: str, trials: int) -> float:
    """Submit a tuning job and wait for its end as a client sees it.

    The client asks from the ideal time on: peers are asked nothing while they run.
    """
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(make_sdist({"trainer/task.py": source}))
        file.flush()
        client.storage.upload_file(Path(file.name), ObjectUri("bench", f"{job_id}/trainer-0.1.tar.gz"))
    rate = {"parameterName": "rate", "type": "DOUBLE", "minValue": 0.001, "maxValue": 0.1}
    body = {
        "jobId": job_id,
        "trainingInput": {
            "runtimeVersion": runtime,
            "pythonModule": "trainer.task",
            "packageUris": [f"gs://bench/{job_id}/trainer-0.1.tar.gz"],
            "jobDir": f"gs://bench/{job_id}",
            "hyperparameters": {
                "goal": "MAXIMIZE",
                "hyperparameterMetricTag": "accuracy",
                "algorithm": "RANDOM_SEARCH",
                "maxTrials": trials,
                "maxParallelTrials": PARALLEL,
                "params": [{**rate, "scaleType": "UNIT_LOG_SCALE"}],
            },
        },
    }
    begin = time.time()
    client.jobs.create(body)
    time.sleep(trials * TRAINING_S / PARALLEL)
    while not (job := client.jobs.get(job_id)).get("endTime"):
        time.sleep(0.02)
    wall_s = time.time() - begin
    finished = [trial for trial in job["trainingOutput"]["trials"] if "finalMetric" in trial]
    if job["state"] != "SUCCEEDED" or len(finished) != trials:
        raise SystemExit(f"{job_id} ended {job['state']}: {job.get('errorMessage')}")
    return wall_s


def run_peer(peers_python: Path, program: str, python: Path, folder: Path, trials: int) -> float:
    """A peer's own time, without its start."""
    command = [peers_python, PEERS_DIR / program, python, folder, str(trials), str(PARALLEL)]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stdout}{done.stderr}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert answer["trials"] == trials
    return float(answer["wall_s"])


def report(walls: dict[str, dict[str, float]], trials: int, *, pooled: bool) -> None:
    """The table, and the bars as the last line."""
    ideal = trials * TRAINING_S / PARALLEL
    print(f"{trials} trials of {TRAINING_S:g} s, {PARALLEL} at a time; the ideal is {ideal:g} s")
    print(f"{'':12} {'enginehouse':>12} {'Optuna':>12} {'Ray Tune':>12}   (s; cost of a trial above its training)")
    bars = {}
    for name, row in walls.items():
        cells = [f"{wall:6.2f} ({(wall - ideal) * PARALLEL / trials:4.2f})" for wall in row.values()]
        print(f"{name:12} {' '.join(f'{cell:>12}' for cell in cells)}")
        limit = 0.65 if pooled and name == "TensorFlow" else 1.0
        for peer in ("Optuna", "Ray Tune"):
            ratio = row["enginehouse"] / row[peer]
            key = f"{name}_to_{peer.replace(' ', '_')}".lower()
            bars[key] = {"value": round(ratio, 3), "bar": limit, "met": ratio <= limit}
    print(json.dumps({"bars": bars}))


if __name__ == "__main__":
    main()
