"""The queue at work: places, quotas, GPUs and giving way, through the reconciler."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginehouse.backends.base import Gpu, Host
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.names import JobName
from enginehouse.core.settings import load_settings
from enginehouse.jobs.capacity import Limits, capacity, parse_quotas
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.replica.spec import Outcome

from .test_reconciler import World

GPU = {"scaleTier": "CUSTOM", "masterType": "standard_gpu"}
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Makes a world with settings."""
    worlds: list[World] = []

    def make(**settings: object) -> World:
        worlds.append(World(tmp_path, **settings))
        return worlds[-1]

    yield make
    for world in worlds:
        world.store.close()
        world.storage.close()


def end(world: World, name: JobName) -> None:
    world.backend.end(world.directory(name), Outcome("exited", exit_code=0, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()


def visible_gpus(world: World, name: JobName) -> str | None:
    return world.backend.launched[world.directory(name)].environment.get("CUDA_VISIBLE_DEVICES")


def waiting_reason(world: World, name: JobName) -> str:
    return world.store.get_job(name).waiting_reason


def test_gpus_are_given_out_and_taken_back(make_world: MakeWorld) -> None:
    world = make_world(gpus="0,1", max_running_jobs=8)
    names = [world.submit(f"gpu_{n}", **GPU) for n in range(3)]
    plain = world.submit("plain")
    world.reconciler.run_once()
    assert [visible_gpus(world, name) for name in [*names[:2], plain]] == ["0", "1", ""]
    assert "it needs 1 GPUs, and 0 of 2 are free" in waiting_reason(world, names[2])
    assert [gpu["job"] for gpu in world.reconciler.hardware()["gpus"]] == ["gpu_0", "gpu_1"]
    world.restart().run_once()  # a new engine knows who has what
    assert world.state(names[2]) == "QUEUED"
    end(world, names[1])
    world.reconciler.run_once()
    assert visible_gpus(world, names[2]) == "1"


def test_a_job_for_more_gpus_than_there_are_waits_with_the_reason(make_world: MakeWorld) -> None:
    world = make_world()
    name, other = world.submit("gpu", **GPU), world.submit("other")
    world.reconciler.run_once()
    assert (world.state(name), world.state(other)) == ("QUEUED", "PREPARING")
    assert world.jobs.get(name).job_position == 1
    (line,) = [line for line in world.lines(name) if "GPU" in line]
    assert "asks for 1 GPUs, and this engine has none" in line
    assert line == waiting_reason(world, name)


def test_a_project_may_run_without_the_gpus_it_asks_for(make_world: MakeWorld) -> None:
    world = make_world(allow_missing_accelerators="other demo")
    name = world.submit("gpu", **GPU)
    world.reconciler.run_once()
    assert world.state(name) == "PREPARING"
    assert visible_gpus(world, name) is None
    assert any("asks for 1 GPU(s)" in line and "runs on CPUs" in line for line in world.lines(name))


def test_a_project_keeps_to_its_quota(make_world: MakeWorld) -> None:
    world = make_world(quotas="demo=jobs:1", max_running_jobs=8)
    names = [world.submit(f"job_{n}") for n in range(2)]
    world.reconciler.run_once()
    assert [world.state(name) for name in names] == ["PREPARING", "QUEUED"]
    assert "quota of the project demo is used up" in waiting_reason(world, names[1])
    end(world, names[0])
    world.reconciler.run_once()
    assert world.state(names[1]) == "PREPARING"


def test_a_low_cost_job_gives_way_and_comes_back(make_world: MakeWorld) -> None:
    world = make_world(max_running_jobs=1)
    cheap = world.submit("cheap", scheduling={"strategy": "LOW_COST"})
    world.reconciler.run_once()
    world.backend.run(world.directory(cheap), world.clock.time_ns())
    world.reconciler.run_once()
    started_ns = world.store.get_job(cheap).start_time_ns
    urgent = world.submit("urgent", scheduling={"priority": 5})
    world.reconciler.run_once()
    assert waiting_reason(world, urgent) == "Waits for cheap to give way."
    world.reconciler.run_once()
    assert "gives way to urgent" in world.backend.stops[world.directory(cheap)]
    assert (world.state(cheap), world.state(urgent)) == ("RUNNING", "QUEUED")
    world.backend.end(world.directory(cheap), Outcome("stopped", ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    assert world.state(cheap) == "QUEUED"
    world.reconciler.run_once()
    assert (world.state(cheap), world.state(urgent)) == ("QUEUED", "PREPARING")
    end(world, urgent)
    world.reconciler.run_once()
    assert world.state(cheap) == "PREPARING"
    again = world.directory(cheap).with_name("master-replica-0.1")
    assert again in world.backend.launched
    world.backend.run(again, world.clock.time_ns())
    world.backend.end(again, Outcome("exited", exit_code=0, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    assert world.state(cheap) == "SUCCEEDED"
    assert world.store.get_job(cheap).start_time_ns == started_ns


def test_a_job_that_is_done_when_it_should_give_way_is_done(make_world: MakeWorld) -> None:
    world = make_world(max_running_jobs=1)
    cheap = world.submit("cheap", scheduling={"strategy": "LOW_COST"})
    world.reconciler.run_once()
    world.submit("urgent", scheduling={"priority": 5})
    world.backend.end(world.directory(cheap), Outcome("exited", exit_code=0, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    assert world.state(cheap) == "SUCCEEDED"


def test_a_job_that_gives_way_can_be_cancelled(make_world: MakeWorld) -> None:
    world = make_world(max_running_jobs=1)
    cheap = world.submit("cheap", scheduling={"strategy": "LOW_COST"})
    world.reconciler.run_once()
    urgent = world.submit("urgent", scheduling={"priority": 5})
    world.reconciler.run_once()
    world.jobs.cancel(cheap)
    world.reconciler.run_once()
    world.backend.end(world.directory(cheap), Outcome("stopped"))
    world.reconciler.run_once()
    world.reconciler.run_once()
    assert (world.state(cheap), world.state(urgent)) == ("CANCELLED", "PREPARING")


def test_what_is_larger_than_the_engine_counts_as_the_whole(make_world: MakeWorld) -> None:
    world = make_world(cpus=2, memory="8GiB", max_running_jobs=8)
    names = [world.submit(f"job_{n}", scaleTier="STANDARD_1") for n in range(2)]
    world.reconciler.run_once()
    assert [world.state(name) for name in names] == ["PREPARING", "QUEUED"]
    assert "it needs 2 CPUs, and 0 of 2 are free" in waiting_reason(world, names[1])


def test_gpus_of_the_host_are_found_and_may_be_chosen() -> None:
    host = Host(cpus=4, gpus=(Gpu("GPU-a", "Tesla T4", 15360), Gpu("GPU-b")))

    def ids(gpus: str) -> list[str]:
        return [gpu.id for gpu in capacity(load_settings({"gpus": gpus}, environ={}), host).gpus]

    assert ids("auto") == ["GPU-a", "GPU-b"]
    assert ids("GPU-b") == ["GPU-b"]
    assert ids("0") == []
    assert ids("2") == ["0", "1"]
    assert ids("3, 5") == ["3", "5"]
    with pytest.raises(InvalidArgument, match="names no GPUs"):
        ids("1,1")


@pytest.mark.parametrize(
    "text", ["demo", "demo=", "demo=jobs", "demo=jobs:x", "demo=tpus:1", "a=jobs:1 a=jobs:2", "=jobs:1"]
)
def test_what_is_no_quota(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no quota"):
        parse_quotas(text)


def test_memory_has_a_unit() -> None:
    for text in ("24", "24GiB", "24 GB", "24g"):
        assert capacity(load_settings({"memory": text}, environ={}), Host(1)).amounts["memory"] == 24
    with pytest.raises(InvalidArgument, match="no amount of memory"):
        capacity(load_settings({"memory": "lots"}, environ={}), Host(1))


@pytest.mark.parametrize(
    ("settings", "memory_gib", "cpus"),
    [
        ({}, 0, 0),
        ({"memory": "60GiB"}, 15, 0),
        ({"memory": "60GiB", "cpus": 8}, 15, 4),
        ({"memory": "60GiB", "cpus": 8, "hold_to_machine_type": "never"}, 0, 0),
    ],
)
def test_replicas_are_held_to_what_is_counted(
    make_world: MakeWorld, settings: dict[str, object], memory_gib: float, cpus: float
) -> None:
    world = make_world(**settings)
    name = world.submit("job", scaleTier="CUSTOM", masterType="n1-standard-4")
    world.reconciler.run_once()
    spec = world.backend.launched[world.directory(name)]
    assert (spec.memory_bytes / (1 << 30), spec.cpus) == (memory_gib, cpus)


def test_replicas_of_a_job_that_is_too_large_are_held_to_their_part() -> None:
    master, worker = ReplicaPlan("master", 0, "", cpus=4, memory_gib=30), ReplicaPlan("worker", 0, "", 4, 10)
    plan = Plan((master, worker), "1.8", "2.7", "", "master")
    counted = capacity(load_settings({"memory": "20", "cpus": 4}, environ={}), Host(4))
    assert counted.limits(plan, master) == Limits(15 << 30, 2)
    assert counted.limits(plan, worker) == Limits(5 << 30, 2)
    always = load_settings({"hold_to_machine_type": "always"}, environ={})
    assert capacity(always, Host(2, memory_gib=8)).limits(plan, master) == Limits(6 << 30, 1)
    with pytest.raises(InvalidArgument, match="none of auto, always and never"):
        capacity(load_settings({"hold_to_machine_type": "yes"}, environ={}), Host(1))
