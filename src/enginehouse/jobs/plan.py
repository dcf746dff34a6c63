"""From a valid training input to the replicas that will run it.

In: TrainingInput and the runtime that was chosen. Out: a `Plan`, stored with the job as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from enginehouse.runtimes.catalogue import Resolution
from enginehouse.schemas.ml_v1 import TrainingInput


@dataclass(frozen=True)
class ReplicaPlan:
    """One process of a job: the `index`-th one of its `role`."""

    role: str
    index: int

    @property
    def task_name(self) -> str:
        """`master-replica-0`: the name in logs."""
        return f"{self.role}-replica-{self.index}"


@dataclass(frozen=True)
class Plan:
    """What will run.

    Attributes:
        replicas: the master first.
        runtime_version: name in the catalogue, aliases resolved.
        python_version: "3.11".
        runtime_reason: why this runtime on this Python, for the job's owner.
        chief_name: key of the master in TF_CONFIG, "chief" or "master".
    """

    replicas: tuple[ReplicaPlan, ...]
    runtime_version: str
    python_version: str
    runtime_reason: str
    chief_name: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        replicas = tuple(ReplicaPlan(**replica) for replica in value["replicas"])
        return cls(**(value | {"replicas": replicas}))


def make_plan(training_input: TrainingInput, resolution: Resolution) -> Plan:
    """The plan of a job that `validate` has let through."""
    chief_name = resolution.runtime.chief_name
    return Plan(
        replicas=(ReplicaPlan("master", 0),),
        runtime_version=resolution.runtime.name,
        python_version=resolution.python_version,
        runtime_reason=resolution.reason,
        chief_name="chief" if training_input.use_chief_in_tf_config else chief_name,
    )
