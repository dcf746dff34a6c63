"""The environment variables of a training process: TF_CONFIG, CLUSTER_SPEC, CLOUD_ML_* and how to reach buckets.

Called by the reconciler for each replica of a job and by `mle local train`, so that both see the same.
Source of the shapes: the original's "distributed training details"; the fields of `job` are in snake case there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from enginehouse.core.cases import snake_case
from enginehouse.gateway.environment import Change, Wiring, wire
from enginehouse.jobs.cluster import Cluster
from enginehouse.jobs.plan import ReplicaPlan
from enginehouse.replica.spec import PARAMETERS_VARIABLE


@dataclass(frozen=True)
class Trial:
    """What a replica of a trial is told.

    Attributes:
        trial_id: a number as text, from "1".
        metric_file: where cloudml-hypertune and `enginehouse.sdk.report` write.
        metric_tag: what to report.
        parameters: names of the flags that are tuned.
    """

    trial_id: str
    metric_file: Path
    metric_tag: str
    parameters: Sequence[str]


def training_environment(
    *,
    project: str,
    job_id: str,
    cluster: Cluster,
    task: ReplicaPlan,
    training_input: Mapping[str, Any],
    engine_url: str | None,
    trial: Trial | None = None,
    wiring: Wiring | None = None,
    host_environment: Mapping[str, str] = MappingProxyType({}),
) -> Change:
    """The variables that the service adds to a replica's environment.

    Args:
        cluster: the job's replicas and where they are.
        task: which of them this one is.
        training_input: the TrainingInput as submitted, JSON-ready.
        engine_url: where the storage API answers, None where no engine is needed.
        trial: only in tuning jobs.
        wiring: how `gs://` of TensorFlow, gsutil and Google's clients reach the engine; None without a gateway.
        host_environment: what the process would have otherwise; its proxies and certificates are replaced.
    """
    task_type = cluster.chief_name if task.role == "master" else task.role
    told: dict[str, Any] = {"type": task_type, "index": task.index, "cloud": f"{job_id}-ml"}
    if trial is not None:
        told["trial"] = trial.trial_id
    config = {"task": told, "job": _snake_case_keys(training_input), "environment": "cloud"}
    containers = {"task": told | {"type": task.role}, "job": config["job"], "environment": "cloud"}
    environment = {
        "TF_CONFIG": json.dumps({"cluster": cluster.addresses(), **config}),
        "CLUSTER_SPEC": json.dumps({"cluster": cluster.addresses(chief_name="master"), **containers}),
        "CLOUD_ML_JOB_ID": job_id,
        "CLOUD_ML_PROJECT_ID": project,
        "GOOGLE_CLOUD_PROJECT": project,
        **cluster.collective_variables(task),
    }
    if trial is not None:
        environment |= {
            "CLOUD_ML_TRIAL_ID": trial.trial_id,
            "CLOUD_ML_HP_METRIC_FILE": str(trial.metric_file),
            "CLOUD_ML_HP_METRIC_TAG": trial.metric_tag,
            PARAMETERS_VARIABLE: json.dumps(list(trial.parameters)),
        }
    unset: tuple[str, ...] = ()
    if wiring is not None:
        change = wire(wiring, host_environment)
        environment |= change.set
        unset = change.unset
    if engine_url is not None:
        environment |= storage_environment(engine_url)
    return Change(environment, unset)


def storage_environment(engine_url: str) -> dict[str, str]:
    """What points google-cloud-storage and gcsfs (so also pandas) at the engine's buckets, without credentials."""
    return {
        "STORAGE_EMULATOR_HOST": engine_url,
        "FSSPEC_GCS": json.dumps({"token": "anon"}),
        # gcsfs would ask over gRPC what kind of bucket it is, and try for a minute where nobody speaks that.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
    }


def _snake_case_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {snake_case(str(key)): _snake_case_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_snake_case_keys(item) for item in value]
    return value
