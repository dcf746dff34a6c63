"""What an engine can give to jobs at a time, and what a project may take: the settings and the host, as numbers.

Places for jobs and GPUs always count. CPUs and memory count where they are declared: on a small machine the replicas
of a job share its cores. A job that is larger than the whole engine counts as the whole engine, but for GPUs: these
can't be shared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enginehouse.backends.base import Gpu, Host
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.settings import Settings
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.queue import DIMENSIONS
from enginehouse.jobs.waiting import Amounts

ALL = "*"
"""Stands for every project."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GiB|GB|G)?", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What the processes of one replica may use together; 0 for no limit."""

    memory_bytes: int = 0
    cpus: float = 0.0


@dataclass(frozen=True)
class Capacity:
    """What there is.

    Attributes:
        amounts: by dimension, for those that count.
        gpus: the devices to give out.
        cpus: cores that replicas share.
        quotas: project (or `ALL`) → limits by dimension.
        without_gpus: projects (or `ALL`) whose jobs may run on CPUs where there are too few GPUs.
        held_to: of "cpus" and "memory", those that replicas are held to, with what there is of them for all.
    """

    amounts: Amounts
    gpus: tuple[Gpu, ...]
    cpus: int
    quotas: Mapping[str, Amounts]
    without_gpus: frozenset[str]
    held_to: Amounts = field(default_factory=dict)

    def demand(self, project: str, plan: Plan) -> Amounts:
        """What a job takes while it runs."""
        asked = plan.resources
        return {
            "jobs": 1,
            "cpus": min(asked.cpus, self.amounts.get("cpus", asked.cpus)),
            "memory": min(asked.memory_gib, self.amounts.get("memory", asked.memory_gib)),
            "gpus": 0 if self.runs_without_gpus(project, plan) else asked.gpus,
            "ml_units": asked.ml_units,
        }

    def limits(self, plan: Plan, replica: ReplicaPlan) -> Limits:
        """What a replica is held to: what its machine type has, or its part of it where the job asks for too much."""
        asked = plan.resources
        memory_gib = _part("memory", replica.memory_gib, asked.memory_gib, self.held_to)
        return Limits(
            memory_bytes=int(memory_gib * (1 << 30)),
            cpus=round(_part("cpus", replica.cpus, asked.cpus, self.held_to), 2),
        )

    def runs_without_gpus(self, project: str, plan: Plan) -> bool:
        """Whether a job that asks for more GPUs than there are runs on CPUs."""
        return plan.resources.gpus > len(self.gpus) and bool({project, ALL} & self.without_gpus)


def _part(dimension: str, own: float, asked: float, held_to: Amounts) -> float:
    if dimension not in held_to or not own:
        return 0.0
    return own * min(1.0, held_to[dimension] / asked)


def capacity(settings: Settings, host: Host) -> Capacity:
    """The capacity that settings and host make.

    Raises:
        InvalidArgument: a setting can't be read.
    """
    gpus = _gpus(settings.gpus, host.gpus)
    amounts: dict[str, float] = {"jobs": settings.max_running_jobs, "gpus": len(gpus)}
    if settings.cpus:
        amounts["cpus"] = settings.cpus
    if settings.memory:
        amounts["memory"] = _gib(settings.memory)
    return Capacity(
        amounts=amounts,
        gpus=gpus,
        cpus=max(1, int(min(settings.cpus, host.cpus))) if settings.cpus else host.cpus,
        quotas=parse_quotas(settings.quotas),
        without_gpus=frozenset(settings.allow_missing_accelerators.split()),
        held_to=_held_to(settings.hold_to_machine_type, amounts, host),
    )


def parse_quotas(text: str) -> dict[str, Amounts]:
    """`PROJECT=jobs:2,gpus:1 *=jobs:8` as limits by project.

    Raises:
        InvalidArgument: it is something else.
    """
    quotas: dict[str, Amounts] = {}
    for item in text.split():
        project, _equals, limits = item.partition("=")
        try:
            pairs = [limit.split(":") for limit in limits.split(",")]
            quota = {dimension: float(amount) for dimension, amount in pairs}
        except ValueError:
            quota = {}
        if not project or project in quotas or not quota or not quota.keys() <= DIMENSIONS.keys():
            raise InvalidArgument(
                f"{item!r} is no quota; write PROJECT=NAME:AMOUNT,…, each project once, with names of "
                f"{', '.join(DIMENSIONS)}, such as demo=jobs:2,gpus:1",
                field="quotas",
            )
        quotas[project] = quota
    return quotas


def _gpus(text: str, found: Sequence[Gpu]) -> tuple[Gpu, ...]:
    if text == "auto":
        return tuple(found)
    by_id = {gpu.id: gpu for gpu in found}
    ids = [str(number) for number in range(int(text))] if text.isdigit() else re.split(r"[\s,]+", text.strip())
    if not all(ids) or len(set(ids)) != len(ids):
        raise InvalidArgument(
            f"{text!r} names no GPUs; write auto, how many there are, or their ids with commas between.", field="gpus"
        )
    return tuple(by_id.get(each, Gpu(each)) for each in ids)


def _held_to(choice: str, amounts: Amounts, host: Host) -> Amounts:
    counted = {name: amounts[name] for name in ("cpus", "memory") if name in amounts}
    match choice:
        case "never":
            return {}
        case "auto":
            return counted
        case "always":
            there = {"cpus": float(host.cpus), "memory": host.memory_gib}
            return {name: amount for name, amount in there.items() if amount} | counted
    raise InvalidArgument(f"{choice!r} is none of auto, always and never.", field="hold_to_machine_type")


def _gib(text: str) -> float:
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"{text!r} is no amount of memory; write GiB, such as 24 or 24GiB.", field="memory")
    return float(found[1])
