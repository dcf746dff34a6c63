"""TF_CONFIG and its companions."""

import json

from enginehouse.jobs.environment import training_environment


def test_tf_config_has_the_originals_shape() -> None:
    environment = training_environment(
        project="demo",
        job_id="iris_1",
        cluster={"chief": ["127.0.0.1:2222"]},
        task_type="chief",
        task_index=0,
        training_input={
            "packageUris": ["gs://b/t.tar.gz"],
            "scheduling": {"maxRunningTime": "60s"},
            "args": ["--aB"],
        },
        engine_url="http://127.0.0.1:8600",
        trial_id="3",
    )
    assert json.loads(environment["TF_CONFIG"]) == {
        "cluster": {"chief": ["127.0.0.1:2222"]},
        "task": {"type": "chief", "index": 0, "cloud": "iris_1-ml", "trial": "3"},
        "job": {"package_uris": ["gs://b/t.tar.gz"], "scheduling": {"max_running_time": "60s"}, "args": ["--aB"]},
        "environment": "cloud",
    }
    assert environment["CLOUD_ML_JOB_ID"] == "iris_1"
    assert environment["CLOUD_ML_PROJECT_ID"] == "demo"
    assert environment["CLOUD_ML_TRIAL_ID"] == "3"
    assert environment["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:8600"


def test_a_job_that_is_no_trial_has_no_trial_id() -> None:
    environment = training_environment(
        project="demo",
        job_id="j",
        cluster={},
        task_type="master",
        task_index=0,
        training_input={},
        engine_url=None,
    )
    assert "CLOUD_ML_TRIAL_ID" not in environment
    assert "STORAGE_EMULATOR_HOST" not in environment
    assert "trial" not in json.loads(environment["TF_CONFIG"])["task"]
