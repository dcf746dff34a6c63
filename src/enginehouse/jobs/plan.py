"""From a valid training input to the replicas that will run it.

In: TrainingInput and the runtime that was chosen. Out: a `Plan`, stored with the job as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from enginehouse.jobs.machines import TIERS, Machine, Tier, machine
from enginehouse.runtimes.catalogue import Resolution
from enginehouse.schemas.ml_v1 import ReplicaConfig, TrainingInput

ROLES = ("master", "worker", "ps", "evaluator")
_UNITS_PER_CPU_HOUR = 0.25
_UNITS_PER_GPU_HOUR = 1.5


@dataclass(frozen=True)
class Resources:
    """An amount of what hosts have: CPUs, memory in GiB, GPUs; and the training units that an hour of it costs."""

    cpus: float = 0
    memory_gib: float = 0
    gpus: int = 0
    ml_units: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cpus + other.cpus,
            self.memory_gib + other.memory_gib,
            self.gpus + other.gpus,
            self.ml_units + other.ml_units,
        )


@dataclass(frozen=True)
class ReplicaPlan:
    """One process of a job: the `index`-th one of its `role`, and what its machine type would have given it.

    With an `image` it is a container, whose `command` takes the place of the image's own, and `args` that of its CMD.
    """

    role: str
    index: int
    machine_type: str = ""
    cpus: int = 1
    memory_gib: float = 0
    gpus: int = 0
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    @property
    def task_name(self) -> str:
        """`master-replica-0`: the name in logs."""
        return f"{self.role}-replica-{self.index}"


@dataclass(frozen=True)
class PredictionModel:
    """What a batch prediction job predicts with.

    Attributes:
        name: the version's resource name, or the gs:// URI of a model that is no version; for people.
        framework: as in `Version.framework`.
        directory: the files of a version; "" for a model that is read from `uri`.
        uri: where the model lies; "" for a version.
        package_uris: the version's own packages.
        workers: processes that predict side by side, at most.
    """

    name: str
    framework: str
    directory: str = ""
    uri: str = ""
    package_uris: tuple[str, ...] = ()
    workers: int = 1


@dataclass(frozen=True)
class Plan:
    """What will run.

    Attributes:
        replicas: the master first, then workers, parameter servers, evaluators.
        runtime_version: name in the catalogue, aliases resolved; "" for containers.
        python_version: "3.11"; "" for containers.
        runtime_reason: why this runtime on this Python, for the job's owner.
        chief_name: key of the master in TF_CONFIG, "chief" or "master".
        ml_units: training units per hour.
        model: in a batch prediction job, what it predicts with.
    """

    replicas: tuple[ReplicaPlan, ...]
    runtime_version: str
    python_version: str
    runtime_reason: str
    chief_name: str
    ml_units: float = field(default=1.0)
    model: PredictionModel | None = None

    @property
    def resources(self) -> Resources:
        """All that the replicas ask for together."""
        return sum(
            (Resources(each.cpus, each.memory_gib, each.gpus) for each in self.replicas),
            Resources(ml_units=self.ml_units),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        replicas = tuple(_replica_from_json(replica) for replica in value["replicas"])
        model = value.get("model")
        if model:
            model = PredictionModel(**model | {"package_uris": tuple(model["package_uris"])})
        return cls(**(value | {"replicas": replicas, "model": model}))


def _replica_from_json(value: dict[str, Any]) -> ReplicaPlan:
    lists = {name: tuple(value.get(name, ())) for name in ("command", "args")}
    return ReplicaPlan(**(value | lists))


def make_plan(training_input: TrainingInput, resolution: Resolution | None) -> Plan:
    """The plan of a job that `validate` has let through.

    Args:
        resolution: None for containers.
    """
    master = training_input.master_config
    tier = TIERS.get(training_input.scale_tier or "BASIC") or _custom(training_input)
    replicas = [
        _replica("master", 0, tier.master, master, master),
        *(_replica("worker", i, tier.worker, training_input.worker_config, master) for i in range(tier.workers)),
        *(
            _replica("ps", i, tier.parameter_server, training_input.parameter_server_config, master)
            for i in range(tier.parameter_servers)
        ),
        *(
            _replica("evaluator", i, training_input.evaluator_type, training_input.evaluator_config, master)
            for i in range(training_input.evaluator_count)
        ),
    ]
    units = tier.ml_units
    if training_input.scale_tier == "CUSTOM":
        units = sum(each.cpus * _UNITS_PER_CPU_HOUR + each.gpus * _UNITS_PER_GPU_HOUR for each in replicas)
    return Plan(
        replicas=tuple(replicas),
        runtime_version=resolution.runtime.name if resolution else "",
        python_version=resolution.python_version if resolution else "",
        runtime_reason=resolution.reason if resolution else f"the image {replicas[0].image} was asked for",
        chief_name="chief"
        if training_input.use_chief_in_tf_config
        else (resolution.runtime.chief_name if resolution else "master"),
        ml_units=round(units, 2),
    )


def _custom(training_input: TrainingInput) -> Tier:
    return Tier(
        training_input.master_type,
        training_input.worker_type,
        training_input.worker_count,
        training_input.parameter_server_type,
        training_input.parameter_server_count,
    )


def _replica(
    role: str, index: int, machine_type: str, config: ReplicaConfig | None, master: ReplicaConfig | None
) -> ReplicaPlan:
    has = machine(machine_type) or Machine(1, 0)
    accelerators = config.accelerator_config if config else None
    gpus = accelerators.count if accelerators and accelerators.type.startswith("NVIDIA") else has.gpus
    own, masters = config or ReplicaConfig(), master or ReplicaConfig()
    # With an image of its own, the master's command and arguments mean nothing to it.
    says = own if own.image_uri or own.container_command or own.container_args else masters
    return ReplicaPlan(
        role,
        index,
        machine_type,
        has.cpus,
        has.memory_gib,
        gpus,
        image=own.image_uri or masters.image_uri,
        command=tuple(says.container_command),
        args=tuple(says.container_args),
    )
