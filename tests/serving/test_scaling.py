"""How many nodes, decided without any process and any waiting."""

from __future__ import annotations

import os

import pytest

from enginehouse.core.errors import InvalidArgument
from enginehouse.serving.scaling import Autoscaler, Scaling
from enginehouse.serving.usage import budget_bytes, cpu_s, host_memory_bytes, memory_bytes

CPUS = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("request_fields", "scaling"),
    [
        ({}, Scaling(0, 1)),
        ({"manualScaling": {"nodes": 3}}, Scaling(3, 3)),
        ({"autoScaling": {"minNodes": 2, "maxNodes": 5}}, Scaling(2, 5)),
        ({"autoScaling": {"minNodes": CPUS + 3}}, Scaling(CPUS + 3, CPUS + 3)),
        ({"autoScaling": {"maxNodes": 4, "metrics": [{"name": "CPU_USAGE", "target": 80}]}}, Scaling(0, 4, 0.8)),
    ],
)
def test_what_a_version_asks_for(request_fields: dict[str, object], scaling: Scaling) -> None:
    assert Scaling.of(request_fields) == scaling


def decide(scaling: Scaling, *looks: tuple[int, float | None, float]) -> list[int]:
    """The numbers of nodes decided at looks (nodes, usage, idle seconds), ten seconds apart."""
    scaler = Autoscaler(idle_s=900, down_after_s=60)
    return [
        scaler.decide(scaling, nodes, usage, idle_s, 10.0 * number).n_nodes
        for number, (nodes, usage, idle_s) in enumerate(looks)
    ]


def test_busy_nodes_get_company_up_to_the_most() -> None:
    assert decide(Scaling(0, 8), (1, 0.9, 0), (2, 1.0, 0), (4, 1.0, 0), (7, 1.0, 0), (8, 1.0, 0)) == [2, 4, 7, 8, 8]


def test_nodes_that_are_not_needed_go_one_by_one_and_only_after_a_while() -> None:
    looks = [(3, 0.1, 0.0)] * 14
    assert decide(Scaling(0, 3), *looks) == [3] * 6 + [2] + [3] * 6 + [2]
    assert decide(Scaling(3, 3), *looks) == [3] * 14


def test_a_short_rest_takes_no_node() -> None:
    assert decide(Scaling(0, 3), *[(2, 0.1, 0.0)] * 5, (2, 0.9, 0.0), *[(2, 0.1, 0.0)] * 6) == [2] * 5 + [3] + [2] * 6


def test_the_last_node_goes_when_nobody_asks_unless_one_is_to_stay() -> None:
    assert decide(Scaling(0, 3), (1, 0.0, 899), (1, 0.0, 900), (0, None, 910)) == [1, 0, 0]
    assert decide(Scaling(1, 3), (1, 0.0, 5000)) == [1]


def test_what_is_missing_of_the_least_is_started() -> None:
    assert decide(Scaling(2, 3), (0, None, 5000), (1, 0.0, 0)) == [2, 2]
    assert decide(Scaling(1, 1), (3, 0.5, 0)) == [1]


def test_a_step_up_is_given_time() -> None:
    scaler = Autoscaler(idle_s=900, down_after_s=60)
    assert scaler.decide(Scaling(0, 4), 1, 1.0, 0, 0.0).n_nodes == 2
    too_soon = scaler.decide(Scaling(0, 4), 2, 1.0, 0, 1.0)
    assert too_soon.n_nodes == 2 and "too recent" in too_soon.reason


def test_reasons_are_for_people() -> None:
    scaler = Autoscaler(idle_s=900, down_after_s=60)
    assert scaler.decide(Scaling(0, 4), 1, 0.9, 0, 0).reason == "nodes use 90% of a processor, the target is 60%"
    assert scaler.decide(Scaling(0, 1), 1, None, 901, 0).reason == "no request for 901 s"


def test_usage_is_read_of_a_real_process() -> None:
    assert memory_bytes(os.getpid()) > 10 * 1024**2
    before = cpu_s(os.getpid())
    sum(range(3_000_000))
    assert cpu_s(os.getpid()) >= before > 0
    assert memory_bytes(2**22 + 1) == 0 and cpu_s(2**22 + 1) == 0.0


def test_the_budget() -> None:
    assert budget_bytes("8GiB") == budget_bytes("8") == 8 * 1024**3
    assert budget_bytes("512 MiB") == 512 * 1024**2
    assert budget_bytes("") == int(host_memory_bytes() * 0.6)
    with pytest.raises(InvalidArgument, match="no amount of memory"):
        budget_bytes("much")
