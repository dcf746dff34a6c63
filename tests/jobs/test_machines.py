"""Machine types and tiers, and the plans made of them."""

from collections import Counter

import pytest

from enginehouse.jobs.machines import LEGACY, TIERS, Machine, machine
from enginehouse.jobs.plan import Plan, make_plan
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import AcceleratorConfig, ReplicaConfig, TrainingInput
from enginehouse.schemas.wire import Int64


def plan(**fields: object) -> Plan:
    return make_plan(TrainingInput(**fields), Catalogue.load().resolve("scikit-learn-1.9"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n1-standard-4", Machine(4, 15)),
        ("n1-highcpu-16", Machine(16, 14.4)),
        ("n1-highmem-8", Machine(8, 52)),
        ("complex_model_m_gpu", Machine(16, 60, 4, "NVIDIA_TESLA_K80")),
        ("a2-highgpu-2g", Machine(24, 170, 2, "NVIDIA_TESLA_A100")),
        ("n1-standard-0", None),
        ("n1-standard-4000", None),
        ("huge", None),
    ],
)
def test_machine_types(name: str, expected: Machine | None) -> None:
    assert machine(name) == expected


@pytest.mark.parametrize(
    ("tier", "roles"),
    [
        ("BASIC", {"master": 1}),
        ("STANDARD_1", {"master": 1, "worker": 4, "ps": 3}),
        ("PREMIUM_1", {"master": 1, "worker": 19, "ps": 11}),
        ("BASIC_GPU", {"master": 1}),
    ],
)
def test_tiers_become_replicas(tier: str, roles: dict[str, int]) -> None:
    made = plan(scale_tier=tier)
    assert Counter(replica.role for replica in made.replicas) == roles
    assert made.replicas[0].task_name == "master-replica-0"
    assert Plan.from_json(made.to_json()) == made


def test_the_chapters_gpu_cluster() -> None:
    made = plan(
        scale_tier="CUSTOM",
        master_type="complex_model_m_gpu",
        worker_type="complex_model_m_gpu",
        parameter_server_type="large_model",
        worker_count=Int64(2),
        parameter_server_count=Int64(3),
    )
    assert [replica.gpus for replica in made.replicas] == [4, 4, 4, 0, 0, 0]
    assert (made.resources.cpus, made.resources.gpus) == (3 * 16 + 3 * 8, 12)


def test_accelerators_beside_a_machine_type_count() -> None:
    gpus = ReplicaConfig(accelerator_config=AcceleratorConfig(count=Int64(2), type="NVIDIA_TESLA_T4"))
    made = plan(scale_tier="CUSTOM", master_type="n1-standard-8", master_config=gpus)
    assert made.replicas[0].gpus == 2


def test_every_tier_names_machines_that_there_are() -> None:
    for tier in TIERS.values():
        for name in filter(None, (tier.master, tier.worker, tier.parameter_server)):
            assert machine(name) is not None or name == "cloud_tpu"
    assert len(LEGACY) == 14
