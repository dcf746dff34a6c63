"""TF_CONFIG and its companions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginehouse.gateway.environment import Wiring
from enginehouse.jobs.cluster import Cluster, thread_variables
from enginehouse.jobs.environment import Trial, training_environment
from enginehouse.jobs.plan import Plan, ReplicaPlan

SINGLE = Plan((ReplicaPlan("master", 0, cpus=4),), "2.21", "3.11", "", "chief")
DISTRIBUTED = replace(
    SINGLE,
    replicas=(
        ReplicaPlan("master", 0, cpus=8),
        ReplicaPlan("worker", 0, cpus=8),
        ReplicaPlan("worker", 1, cpus=8),
        ReplicaPlan("ps", 0, cpus=4),
        ReplicaPlan("evaluator", 0, cpus=4),
    ),
)
PORTS = {
    "master-replica-0": (2000, 2001),
    "worker-replica-0": (2010,),
    "worker-replica-1": (2011,),
    "ps-replica-0": (2020,),
    "evaluator-replica-0": (2030,),
}


def environment(plan: Plan, task: str, **changes: Any) -> dict[str, str]:
    replica = next(each for each in plan.replicas if each.task_name == task)
    given: dict[str, Any] = {
        "project": "demo",
        "job_id": "iris_1",
        "cluster": Cluster(plan, PORTS),
        "task": replica,
        "training_input": {},
        "engine_url": None,
    }
    return training_environment(**(given | changes)).set


def test_tf_config_has_the_originals_shape() -> None:
    variables = environment(
        SINGLE,
        "master-replica-0",
        training_input={
            "packageUris": ["gs://b/t.tar.gz"],
            "scheduling": {"maxRunningTime": "60s"},
            "args": ["--aB"],
        },
        engine_url="http://127.0.0.1:8600",
        trial=Trial("3", Path("/replica/hypertune/output.metrics"), "accuracy", ["learning-rate"]),
    )
    assert json.loads(variables["TF_CONFIG"]) == {
        "cluster": {"chief": ["127.0.0.1:2000"]},
        "task": {"type": "chief", "index": 0, "cloud": "iris_1-ml", "trial": "3"},
        "job": {"package_uris": ["gs://b/t.tar.gz"], "scheduling": {"max_running_time": "60s"}, "args": ["--aB"]},
        "environment": "cloud",
    }
    assert variables["CLOUD_ML_JOB_ID"] == "iris_1"
    assert variables["CLOUD_ML_PROJECT_ID"] == "demo"
    assert variables["CLOUD_ML_TRIAL_ID"] == "3"
    assert variables["CLOUD_ML_HP_METRIC_FILE"] == "/replica/hypertune/output.metrics"
    assert variables["CLOUD_ML_HP_METRIC_TAG"] == "accuracy"
    assert variables["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:8600"


def test_a_job_that_is_no_trial_has_no_trial_id() -> None:
    variables = environment(SINGLE, "master-replica-0")
    assert "CLOUD_ML_TRIAL_ID" not in variables
    assert "STORAGE_EMULATOR_HOST" not in variables
    assert "trial" not in json.loads(variables["TF_CONFIG"])["task"]
    assert "RANK" not in variables, "a program may take it for a sign of a launcher"


def test_every_replica_knows_the_cluster_and_itself() -> None:
    cluster = {"chief": ["127.0.0.1:2000"], "worker": ["127.0.0.1:2010", "127.0.0.1:2011"], "ps": ["127.0.0.1:2020"]}
    told = {}
    for task in PORTS:
        config = json.loads(environment(DISTRIBUTED, task)["TF_CONFIG"])
        assert config["cluster"] == cluster, "the evaluator is in no cluster"
        told[task] = (config["task"]["type"], config["task"]["index"])
    assert told == {
        "master-replica-0": ("chief", 0),
        "worker-replica-0": ("worker", 0),
        "worker-replica-1": ("worker", 1),
        "ps-replica-0": ("ps", 0),
        "evaluator-replica-0": ("evaluator", 0),
    }


def test_older_runtimes_and_cluster_spec_say_master() -> None:
    plan = replace(DISTRIBUTED, chief_name="master")
    config = json.loads(environment(plan, "master-replica-0")["TF_CONFIG"])
    assert (config["task"]["type"], list(config["cluster"])) == ("master", ["master", "worker", "ps"])
    spec = json.loads(environment(DISTRIBUTED, "master-replica-0")["CLUSTER_SPEC"])
    assert (spec["task"]["type"], list(spec["cluster"])) == ("master", ["master", "worker", "ps"])


def test_collectives_rank_the_replicas_that_compute() -> None:
    variables = [environment(DISTRIBUTED, task) for task in PORTS]
    assert [each.get("RANK") for each in variables] == ["0", "1", "2", None, None]
    for each in variables[:3]:
        assert (each["WORLD_SIZE"], each["MASTER_ADDR"], each["MASTER_PORT"]) == ("3", "127.0.0.1", "2000")
        assert (each["JAX_COORDINATOR_ADDRESS"], each["JAX_NUM_PROCESSES"]) == ("127.0.0.1:2001", "3")
        assert (each["DMLC_TRACKER_PORT"], each["DMLC_NUM_WORKER"]) == ("2001", "3")


def test_threads_are_limited_only_where_replicas_share() -> None:
    assert thread_variables(SINGLE, 2) == {}
    assert thread_variables(DISTRIBUTED, 64) == {}
    assert thread_variables(DISTRIBUTED, 16)["OMP_NUM_THREADS"] == "3"
    assert thread_variables(DISTRIBUTED, 2)["TF_NUM_INTRAOP_THREADS"] == "1"


def test_what_would_lead_elsewhere_is_taken_away(tmp_path: Path) -> None:
    wiring = Wiring("http://127.0.0.1:1", "http://127.0.0.1:2", "demo", tmp_path / "b", tmp_path / "a", tmp_path)
    change = training_environment(
        project="demo",
        job_id="j",
        cluster=Cluster(SINGLE, PORTS),
        task=SINGLE.replicas[0],
        training_input={},
        engine_url=None,
        wiring=wiring,
        host_environment={"GCE_METADATA_HOST": "elsewhere", "https_proxy": "http://proxy:3128"},
    )
    assert "GCE_METADATA_HOST" in change.unset
    assert change.set["https_proxy"] == "http://127.0.0.1:2"
