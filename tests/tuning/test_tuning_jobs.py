"""Tuning jobs on a real engine: trials as processes, metrics as they report them, output as the original's."""

from typing import Any

import pytest

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.testing.replicas import LIGHT_RUNTIME
from enginehouse.testing.training import Trainings, user_processes

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


def test_a_flag_that_nothing_reads_is_told_of_once(trainings: Trainings) -> None:
    log = [line for line in trainings.log("tune_1") if "never read --" in line]
    assert log == [
        "service: The trainer never read --learning-rate: its argument parser does not know that flag and left it "
        "over, so tuning learning-rate changes nothing. Did you mean --learning_rate? Call the parameter so."
    ]


def test_the_study_of_a_job_can_be_read_and_nothing_else(trainings: Trainings) -> None:
    transport, study = trainings.client.transport, "/v1/projects/demo/locations/jobs/studies/tune_1"
    trials = transport.json("GET", f"{study}/trials")["trials"]
    assert [trial["state"] for trial in trials] == ["COMPLETED"] * 4
    with pytest.raises(FailedPrecondition, match="change the job"):
        transport.json("POST", f"{study}/trials:suggest", {"suggestionCount": 1, "clientId": "me"})
    with pytest.raises(FailedPrecondition, match="change the job"):
        transport.json("DELETE", study)


def small(**changes: Any) -> dict[str, Any]:
    """A spec of one parameter."""
    units = {"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": 9}
    return {"goal": "MINIMIZE", "hyperparameterMetricTag": "loss", "params": [units], **changes}


PRELUDE = """\
import argparse, os, sys, time
from enginehouse import sdk

parser = argparse.ArgumentParser()
parser.add_argument("--job-dir")
parser.add_argument("--units", type=int)
arguments = parser.parse_args()
trial = int(os.environ["CLOUD_ML_TRIAL_ID"])
"""


def test_a_metric_that_was_never_reported_is_told_of_with_the_tags_that_were(trainings: Trainings) -> None:
    trainer = PRELUDE + "sdk.report('los', 1.0)\n"
    trainings.submit(
        "tune_silent", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=small(maxTrials=2, maxParallelTrials=2)
    )
    output = trainings.succeed("tune_silent")["trainingOutput"]
    assert output["completedTrialCount"] == "2"
    assert [trial["trialId"] for trial in output["trials"]] == ["1", "2"]
    assert not [trial for trial in output["trials"] if "finalMetric" in trial]
    told = [line for line in trainings.log("tune_silent") if "never reported" in line]
    assert len(told) == 1
    assert "Tags that were seen: los." in told[0]


def test_a_trial_that_fails_first_fails_the_job(trainings: Trainings) -> None:
    trainer = PRELUDE + "raise ValueError('no luck')\n"
    trainings.submit(
        "tune_fails", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=small(maxTrials=3, maxParallelTrials=1)
    )
    job = trainings.wait("tune_fails")
    units = job["trainingOutput"]["trials"][0]["hyperparameters"]["units"]
    assert job["state"] == "FAILED"
    assert job["errorMessage"].startswith(
        "Hyperparameter Tuning Trial #1 Failed before any other successful trials were completed. The failed trial "
        f"had parameters: units={units}, . The trial's error message was: The replica master 0 exited with a "
        "non-zero status of 1."
    )
    assert "ValueError: no luck" in job["errorMessage"]
    assert [trial["state"] for trial in job["trainingOutput"]["trials"]] == ["FAILED"]


def test_failed_trials_are_borne_as_the_spec_says(trainings: Trainings) -> None:
    trainer = PRELUDE + "assert trial == 2\nsdk.report('loss', 1.0)\n"
    spec = small(maxTrials=4, maxFailedTrials=3)
    trainings.submit("tune_bears", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=spec)
    job = trainings.wait("tune_bears")
    assert job["state"] == "FAILED"
    assert "Trial #4 Failed: 3 trial(s) failed, and maxFailedTrials is 3." in job["errorMessage"]
    states = [(trial["trialId"], trial["state"]) for trial in job["trainingOutput"]["trials"]]
    assert states == [("2", "SUCCEEDED"), ("1", "FAILED"), ("3", "FAILED"), ("4", "FAILED")]


GOES_ON = """\
for step in range(1, 401):
    sdk.report("loss", arguments.units + 10 * (trial > 5), step=step)
    time.sleep(0.1 * (trial > 5))
"""


def test_a_hopeless_trial_is_stopped_early_and_keeps_its_metrics(trainings: Trainings) -> None:
    trainings.submit(
        "tune_stops",
        PRELUDE + GOES_ON,
        runtimeVersion=LIGHT_RUNTIME,
        hyperparameters=small(maxTrials=6, enableTrialEarlyStopping=True),
    )
    output = trainings.succeed("tune_stops")["trainingOutput"]
    last = output["trials"][-1]
    assert (last["trialId"], last["state"], last["isTrialStoppedEarly"]) == ("6", "SUCCEEDED", True)
    assert last["finalMetric"]["objectiveValue"] > 10
    assert output["completedTrialCount"] == "6"
    assert any("Trial 6 of 6 is stopped early: loss will be" in line for line in trainings.log("tune_stops"))


def test_a_single_trial_is_stopped_ranges_widened_and_trials_added(trainings: Trainings) -> None:
    trainer = PRELUDE + (
        "sdk.report('loss', arguments.units, step=1)\ntime.sleep(0 if arguments.units > 9 else 600)\n"
    )
    trainings.submit("tune_steer", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=small())
    client = trainings.client
    trainings.wait_until(
        "tune_steer", lambda job: any("allMetrics" in trial for trial in job["trainingOutput"].get("trials", ()))
    )
    wide = {"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": 10**9}
    change = {"trainingInput": {"hyperparameters": {"maxTrials": 3, "params": [wide]}}}
    paths = ["trainingInput.hyperparameters.maxTrials", "trainingInput.hyperparameters.params"]
    client.jobs.patch("tune_steer", change, paths)
    client.jobs.stop_trial("tune_steer", "1")
    output = trainings.succeed("tune_steer")["trainingOutput"]
    assert len(output["trials"]) == 3
    first = next(trial for trial in output["trials"] if trial["trialId"] == "1")
    assert first["isTrialStoppedEarly"] is True
    assert first["finalMetric"]["objectiveValue"] == int(first["hyperparameters"]["units"])
    assert max(int(trial["hyperparameters"]["units"]) for trial in output["trials"]) > 9


def test_a_job_goes_on_with_the_study_of_another(trainings: Trainings) -> None:
    trainer = PRELUDE + "sdk.report('loss', arguments.units)\n"
    spec = small(algorithm="GRID_SEARCH", maxTrials=5)
    trainings.submit("tune_first", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=spec)
    first = trainings.succeed("tune_first")["trainingOutput"]
    trainings.submit(
        "tune_second",
        trainer,
        runtimeVersion=LIGHT_RUNTIME,
        hyperparameters={**spec, "resumePreviousJobId": "tune_first", "maxTrials": 9, "maxParallelTrials": 2},
    )
    second = trainings.succeed("tune_second")["trainingOutput"]
    tried = [[int(trial["hyperparameters"]["units"]) for trial in output["trials"]] for output in (first, second)]
    assert tried == [[1, 2, 3, 4, 5], [6, 7, 8, 9]], "the grid goes on and is exhausted"
    assert [trial["trialId"] for trial in second["trials"]] == ["6", "7", "8", "9"]
    assert any("search space is exhausted" in line for line in trainings.log("tune_second"))


def test_cancelling_the_job_cancels_its_trials(trainings: Trainings) -> None:
    trainer = PRELUDE + "time.sleep(600)\n"
    spec = small(maxTrials=4, maxParallelTrials=2)
    trainings.submit("tune_cancel", trainer, runtimeVersion=LIGHT_RUNTIME, hyperparameters=spec)
    job = trainings.wait_until(
        "tune_cancel",
        lambda job: [trial["state"] for trial in job["trainingOutput"].get("trials", ())] == ["RUNNING", "RUNNING"],
    )
    assert job["state"] == "RUNNING"
    trainings.client.jobs.cancel("tune_cancel")
    job = trainings.wait("tune_cancel")
    assert job["state"] == "CANCELLED"
    assert [trial["state"] for trial in job["trainingOutput"]["trials"]] == ["CANCELLED", "CANCELLED"]
    assert not list(user_processes("tune_cancel", "chief"))


def test_what_takes_too_long_is_cancelled(trainings: Trainings) -> None:
    trainer = PRELUDE + "time.sleep(600)\n"
    trainings.submit(
        "tune_long",
        trainer,
        runtimeVersion=LIGHT_RUNTIME,
        hyperparameters=small(),
        scheduling={"maxRunningTime": "1s"},
    )
    job = trainings.wait("tune_long")
    assert job["state"] == "CANCELLED"
    assert "maxRunningTime" in job["errorMessage"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"params": []}, "params", "Give 1 to"),
        ({"maxTrials": -1}, "max_trials", "from 1"),
        ({"params": [{"parameterName": "a b", "type": "DOUBLE"}]}, "params[0].parameter_name", "flag"),
        ({"params": [{"parameterName": "a", "type": "DOUBLE", "minValue": 1}]}, "params[0].max_value", "required"),
        ({"algorithm": "GRID_SEARCH"}, "params[0].type", "DISCRETE"),
        ({"resumePreviousJobId": "no_such_job"}, "resume_previous_job_id", "no job"),
        ({"resumePreviousJobId": "tune_first"}, "params[0].parameter_name", "stay the same"),
    ],
)
def test_what_is_wrong_is_refused_with_its_cure(
    trainings: Trainings, change: dict[str, Any], field: str, words: str
) -> None:
    rate = {"parameterName": "rate", "type": "DOUBLE", "minValue": 0.1, "maxValue": 1}
    with pytest.raises(InvalidArgument) as error:
        trainings.submit(
            "tune_wrong", "", runtimeVersion=LIGHT_RUNTIME, hyperparameters=small(**{"params": [rate], **change})
        )
    found = {violation.field: violation.description for violation in error.value.violations}
    assert words in found[f"training_input.hyperparameters.{field}"]
