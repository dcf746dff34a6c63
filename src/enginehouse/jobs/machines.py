"""Machine types and scale tiers of the original service, as data.

A machine type says how much of a host a replica may use. Sources: the original's lists of machine types, legacy ones
with their Compute Engine equivalents; families of Compute Engine by their naming rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from enginehouse.schemas.ml_v1 import ScaleTier


@dataclass(frozen=True)
class Machine:
    """What a machine type has: virtual CPUs, memory in GiB, and accelerators of one kind."""

    cpus: int
    memory_gib: float
    gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True)
class Tier:
    """What a scale tier stands for: a machine type per role, and how many of each; training units per hour."""

    master: str
    worker: str = ""
    workers: int = 0
    parameter_server: str = ""
    parameter_servers: int = 0
    ml_units: float = 1.0


_K80, _P100, _V100 = "NVIDIA_TESLA_K80", "NVIDIA_TESLA_P100", "NVIDIA_TESLA_V100"
LEGACY: dict[str, Machine] = {
    "standard": Machine(4, 15),
    "large_model": Machine(8, 52),
    "complex_model_s": Machine(8, 7.2),
    "complex_model_m": Machine(16, 14.4),
    "complex_model_l": Machine(32, 28.8),
    "standard_gpu": Machine(8, 30, 1, _K80),
    "complex_model_m_gpu": Machine(16, 60, 4, _K80),
    "complex_model_l_gpu": Machine(32, 120, 8, _K80),
    "standard_p100": Machine(8, 30, 1, _P100),
    "complex_model_m_p100": Machine(16, 60, 4, _P100),
    "standard_v100": Machine(8, 30, 1, _V100),
    "large_model_v100": Machine(8, 52, 1, _V100),
    "complex_model_m_v100": Machine(16, 60, 4, _V100),
    "complex_model_l_v100": Machine(32, 120, 8, _V100),
}
TPU = "cloud_tpu"
"""The one machine type that no ordinary host can stand for."""

TIERS: dict[ScaleTier, Tier] = {
    "BASIC": Tier("n1-standard-4"),
    "STANDARD_1": Tier("n1-highcpu-8", "n1-highcpu-8", 4, "n1-standard-4", 3, ml_units=9.96),
    "PREMIUM_1": Tier("n1-highcpu-16", "n1-highcpu-16", 19, "n1-highmem-8", 11, ml_units=74.8),
    "BASIC_GPU": Tier("standard_gpu", ml_units=2.97),
    "BASIC_TPU": Tier("n1-standard-4", TPU, 1, ml_units=9.39),
}

_GIB_PER_CPU = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}
_COMPUTE_ENGINE = re.compile(r"(n1|n2|e2|c2)-(standard|highmem|highcpu)-(\d{1,3})")
_A2 = re.compile(r"a2-highgpu-([1248])g")
_MAX_CPUS = 128


def machine(name: str) -> Machine | None:
    """The machine of a type, None for a name that is no type."""
    if name in LEGACY:
        return LEGACY[name]
    if found := _COMPUTE_ENGINE.fullmatch(name):
        cpus = int(found[3])
        return Machine(cpus, cpus * _GIB_PER_CPU[found[2]]) if 1 <= cpus <= _MAX_CPUS else None
    if found := _A2.fullmatch(name):
        count = int(found[1])
        return Machine(12 * count, 85.0 * count, count, "NVIDIA_TESLA_A100")
    return None


def is_legacy(name: str) -> bool:
    """Whether a type is of the service's own names; a job may not mix these with Compute Engine's."""
    return name in LEGACY
