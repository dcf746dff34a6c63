"""What the replicas of a job run: the user's module, or the engine's own program for batch predictions.

Called by the reconciler at each launch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginehouse.core.names import JobName
from enginehouse.jobs.environment import Trial
from enginehouse.jobs.hyperparameters import metric_tag
from enginehouse.jobs.plan import Plan, PredictionModel
from enginehouse.metadata.records import JobRecord
from enginehouse.replica.spec import METRIC_FILE
from enginehouse.schemas.ml_v1 import HyperparameterSpec
from enginehouse.schemas.wire import from_builtins

_BATCH_ENTRY = Path(__file__).parents[1] / "batch" / "entry"


@dataclass(frozen=True)
class Program:
    """One program for all replicas of a job.

    Attributes:
        module, args, job_dir: as in `ReplicaSpec`; a container's own arguments are in its plan.
        package_uris: installed over the runtime, in this order.
        told: what TF_CONFIG says of the job.
        environment: variables that the program needs beside those of every job.
        tuned: in a trial of a tuning job, the HyperparameterSpec.
    """

    module: str
    args: tuple[str, ...]
    job_dir: str | None
    package_uris: tuple[str, ...]
    told: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    tuned: HyperparameterSpec | None = None

    def trial(self, name: JobName, directory: Path) -> Trial | None:
        """What a replica of a trial is told; None for other jobs.

        Args:
            directory: the replica's.
        """
        if self.tuned is None:
            return None
        parameters = [param.parameter_name for param in self.tuned.params]
        return Trial(name.trial_id, directory / METRIC_FILE, metric_tag(self.tuned), parameters)


def program_of(job: JobRecord, plan: Plan) -> Program:
    """The program of a job that `validate` has let through."""
    if plan.model is not None:
        return _batch_prediction(job, plan.model)
    spec = job.request["trainingInput"]
    return Program(
        module=spec.get("pythonModule", ""),
        args=tuple(spec.get("args", ())),
        job_dir=spec.get("jobDir") or None,
        package_uris=tuple(spec.get("packageUris", ())),
        told=spec,
        tuned=from_builtins(HyperparameterSpec, spec["hyperparameters"]) if job.name.trial_id else None,
    )


def scheduling_of(job: JobRecord) -> dict[str, Any]:
    """What the user wants of the job's times; only training jobs can say it."""
    scheduling: dict[str, Any] = job.request.get("trainingInput", {}).get("scheduling", {})
    return scheduling


def _batch_prediction(job: JobRecord, model: PredictionModel) -> Program:
    spec = job.request["predictionInput"]
    task = {
        "run": f"{job.name}@{job.create_time_ns}",
        "framework": model.framework,
        "directory": model.directory,
        "uri": model.uri,
        "inputPaths": spec["inputPaths"],
        "outputPath": spec["outputPath"],
        "dataFormat": spec["dataFormat"],
        "outputDataFormat": spec.get("outputDataFormat", ""),
        "batchSize": int(spec.get("batchSize", 0)),
        "signatureName": spec.get("signatureName", ""),
        "workers": model.workers,
    }
    return Program(
        module="enginehouse_batch",
        args=(json.dumps(task),),
        job_dir=None,
        package_uris=model.package_uris,
        told=spec,
        environment={"PYTHONPATH": str(_BATCH_ENTRY), "ENGINEHOUSE_BATCH_PYTHON": sys.executable},
    )
