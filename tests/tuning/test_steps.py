"""Tuning jobs in the queue, giving way, and with odd metrics, without processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enginehouse.replica.spec import Outcome
from enginehouse.tuning.failures import MAX_FAILURES_IN_A_ROW, why_failed
from enginehouse.tuning.progress import Progress

from .world import World

Make = Callable[..., World]
DONE = Outcome("exited", exit_code=0, ended_ns=1)


def quick(number: int, _rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
    return [(1, float(number))], DONE


def endless(number: int, rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
    return [(rounds, float(number))], None


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    worlds: list[World] = []

    def build(trainer: Any, **settings: Any) -> World:
        worlds.append(World(tmp_path / str(len(worlds)), trainer, **settings))
        return worlds[-1]

    yield build
    for world in worlds:
        world.close()


def states(world: World, name: Any) -> list[str]:
    trials = world.shown(name)["trainingOutput"].get("trials", ())
    return [trial["state"] for trial in sorted(trials, key=lambda trial: int(trial["trialId"]))]


def test_the_queue_counts_trials_and_the_job_waits_with_its_first(make: Make) -> None:
    world = make(endless, max_running_jobs=1)
    first = world.submit("first", maxTrials=2, maxParallelTrials=2)
    second = world.submit("second", maxTrials=1)
    for _ in range(4):
        world.round()
    assert states(world, first) == ["RUNNING", "QUEUED"]
    assert world.shown(first)["state"] == "RUNNING"
    waiting = world.shown(second)
    assert (waiting["state"], waiting["jobPosition"]) == ("QUEUED", "2")
    world.jobs.cancel(first)
    for _ in range(5):
        world.round()
    assert world.shown(second)["state"] == "RUNNING"


def test_a_trial_gives_way_to_a_job_of_higher_priority_and_begins_again(make: Make) -> None:
    world = make(endless, max_running_jobs=1)
    low = world.submit("low", scheduling={"strategy": "LOW_COST"}, maxTrials=1)
    for _ in range(4):
        world.round()
    assert states(world, low) == ["RUNNING"]
    high = world.submit("high", scheduling={"priority": 9}, maxTrials=1)
    for _ in range(6):
        world.round()
    assert states(world, high) == ["RUNNING"]
    assert states(world, low) == ["QUEUED"]
    assert world.shown(low)["state"] == "RUNNING", "the tuning job itself goes on"
    world.jobs.cancel(high)
    for _ in range(6):
        world.round()
    assert states(world, low) == ["RUNNING"]
    assert len([path for path in world.backend.launched if "/low/" in str(path)]) == 2


def test_a_job_that_waits_too_long_is_cancelled_with_its_trials(make: Make) -> None:
    world = make(endless, max_running_jobs=1)
    world.submit("first", maxTrials=1)
    for _ in range(3):
        world.round()
    late = world.submit("late", scheduling={"maxWaitTime": "5s"}, maxTrials=1)
    job = world.finish(late)
    assert job["state"] == "CANCELLED"
    assert "maxWaitTime (5s)" in job["errorMessage"]
    assert states(world, late) == ["CANCELLED"]


def test_the_best_value_counts_where_the_setting_says_so(make: Make) -> None:
    def trainer(number: int, _rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
        return [(1, 0.5), (2, 0.9), (3, 0.7)], DONE

    finals = {}
    for objective in ("last", "best"):
        world = make(trainer, tuning_objective=objective)
        job = world.finish(world.submit(maxTrials=1))
        finals[objective] = job["trainingOutput"]["trials"][0]["finalMetric"]
    assert finals == {
        "last": {"trainingStep": "3", "objectiveValue": 0.7},
        "best": {"trainingStep": "2", "objectiveValue": 0.9},
    }


def test_a_metric_of_zero_is_shown_and_one_that_is_no_number_comes_last(make: Make) -> None:
    values = {1: float("nan"), 2: 0.0, 3: -1.0, 4: float("inf")}

    def trainer(number: int, _rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
        return [(0, values[number])], DONE

    world = make(trainer)
    trials = world.finish(world.submit(maxTrials=4))["trainingOutput"]["trials"]
    assert [(trial["trialId"], trial["finalMetric"]["objectiveValue"]) for trial in trials] == [
        ("4", "Infinity"),
        ("2", 0.0),
        ("3", -1.0),
        ("1", "NaN"),
    ]
    assert trials[1]["finalMetric"]["trainingStep"] == "0"


def test_a_long_curve_is_thinned_where_it_is_shown(make: Make) -> None:
    def trainer(number: int, _rounds: int) -> tuple[list[tuple[int, float]], Outcome | None]:
        return [(step, step / 2) for step in range(2001)], DONE

    world = make(trainer)
    (trial,) = world.finish(world.submit(maxTrials=1))["trainingOutput"]["trials"]
    steps = [int(point["trainingStep"]) for point in trial["allMetrics"]]
    assert len(steps) == 100
    assert (steps[0], steps[-1]) == (0, 2000)
    assert steps == sorted(set(steps))
    assert trial["finalMetric"] == {"trainingStep": "2000", "objectiveValue": 1000.0}


def test_failures_in_a_row_end_the_job_only_when_there_are_several() -> None:
    def after(told: str, failed: str) -> str:
        progress = Progress(told=tuple(told), failed=tuple(failed))
        return why_failed(progress, max_failed_trials=0, parameters={"a": "1", "b": "x"}, error_message="oh.")

    assert after("1", "1").startswith(
        "Hyperparameter Tuning Trial #1 Failed before any other successful trials were completed. The failed trial "
        "had parameters: a=1, b=x, . The trial's error message was: oh."
    )
    assert after("12", "2") == ""
    assert MAX_FAILURES_IN_A_ROW == 5
    assert after("123456", "3456") == "", "four in a row"
    assert "#6 Failed, as did the 4 before it" in after("123456", "23456")
    assert after("1234567", "23567") == "", "the fourth did well"
