"""Tuning jobs on a real engine: trials as processes, metrics as they report them, output as the original's."""

from typing import Any

from enginehouse.testing.replicas import LIGHT_RUNTIME
from enginehouse.testing.training import Trainings

TRAINER = """\
import argparse, json, os
from enginehouse import sdk

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--learning_rate", type=float, default=0.0)
parser.add_argument("--units", type=int)
parser.add_argument("--kind")
arguments, _ = parser.parse_known_args()
trial = os.environ["CLOUD_ML_TRIAL_ID"]
assert json.loads(os.environ["TF_CONFIG"])["task"]["trial"] == trial
assert arguments.job_dir.endswith("/" + trial), arguments.job_dir
for step in (1, 2, 3):
    sdk.report("accuracy", arguments.units * step, step=step)
print("units", arguments.units, "kind", arguments.kind)
"""

SPEC: dict[str, Any] = {
    "goal": "MAXIMIZE",
    "hyperparameterMetricTag": "accuracy",
    "maxTrials": 4,
    "maxParallelTrials": 2,
    "params": [
        {
            "parameterName": "learning-rate",
            "type": "DOUBLE",
            "minValue": 0.00001,
            "maxValue": 0.005,
            "scaleType": "UNIT_LOG_SCALE",
        },
        {"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": 500},
        {"parameterName": "kind", "type": "CATEGORICAL", "categoricalValues": ["a", "b"]},
    ],
}


def test_trials_run_report_and_are_shown_best_first(trainings: Trainings) -> None:
    trainings.submit("tune_1", TRAINER, "--kind", "x", runtimeVersion=LIGHT_RUNTIME, hyperparameters=SPEC)
    assert trainings.client.jobs.get("tune_1")["trainingOutput"]["isHyperparameterTuningJob"] is True
    output = trainings.succeed("tune_1")["trainingOutput"]
    trials = output["trials"]
    assert output["completedTrialCount"] == "4"
    assert output["hyperparameterMetricTag"] == "accuracy"
    assert sorted(trial["trialId"] for trial in trials) == ["1", "2", "3", "4"]
    objectives = [trial["finalMetric"]["objectiveValue"] for trial in trials]
    assert objectives == sorted(objectives, reverse=True)
    for trial in trials:
        units = int(trial["hyperparameters"]["units"])
        assert trial["finalMetric"] == {"trainingStep": "3", "objectiveValue": units * 3}
        assert [point["trainingStep"] for point in trial["allMetrics"]] == ["1", "2", "3"]
        assert 0.00001 <= float(trial["hyperparameters"]["learning-rate"]) <= 0.005
        assert trial["state"] == "SUCCEEDED"
        assert trial["startTime"] <= trial["endTime"]
    listed = [job["jobId"] for job in trainings.client.jobs.list()]
    assert listed.count("tune_1") == 1
    assert not [job_id for job_id in listed if "/" in job_id]
    entries = trainings.client.jobs.read_logs("tune_1", "")["entries"]
    by_trial = {entry["trialId"] for entry in entries if entry["taskName"] == "master-replica-0"}
    assert by_trial == {"1", "2", "3", "4"}
    log = trainings.log("tune_1")
    best = trials[0]
    said = f"best so far: trial {best['trialId']}, {best['finalMetric']['objectiveValue']:g}."
    assert log[-2].startswith("service: Trial ")
    assert log[-2].endswith(said)
    assert log[-1] == "service: Job completed successfully."
