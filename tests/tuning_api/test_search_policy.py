"""What a study is given by its configuration: suggestions and the judgement of the median rule."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from enginehouse.core.names import StudyName
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.optimizer import StudyConfig, TrialParameter
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.tuning.search import SearchPolicy
from enginehouse.tuning.space import Space

NAME = StudyName("demo", "us-central1", "s")
METRICS = [{"metric": "acc", "goal": "MAXIMIZE"}]


def config(**fields: Any) -> StudyConfig:
    return from_builtins(StudyConfig, {"metrics": METRICS, **fields})


def study(of: StudyConfig, **fields: Any) -> StudyRecord:
    return StudyRecord(name=NAME, config=to_builtins(of), create_time_ns=1, seed=7, **fields)


def as_trials(points: list[list[TrialParameter]]) -> list[TrialRecord]:
    return [
        TrialRecord(NAME.trial(number), "ACTIVE", [to_builtins(parameter) for parameter in point], 1)
        for number, point in enumerate(points, 1)
    ]


TWO = [
    {"parameter": "n", "type": "INTEGER", "integerValueSpec": {"minValue": "1", "maxValue": "2"}},
    {"parameter": "c", "type": "CATEGORICAL", "categoricalValueSpec": {"values": ["x", "y"]}},
]


@pytest.mark.parametrize("algorithm", ["GRID_SEARCH", "RANDOM_SEARCH", "ALGORITHM_UNSPECIFIED"])
def test_suggestions_one_by_one_are_those_of_a_batch(algorithm: str) -> None:
    of = study(config(parameters=TWO, algorithm=algorithm))
    batch = [list(point) for point in SearchPolicy().suggest(of, [], 4)]
    single: list[list[TrialParameter]] = []
    for number in range(1, 5):
        (point,) = SearchPolicy().suggest(replace(of, next_trial_id=number), as_trials(single), 1)
        single.append(list(point))
    assert single == batch


def test_a_grid_ends_and_leaves_out_what_was_tried() -> None:
    of = study(config(parameters=TWO, algorithm="GRID_SEARCH"))
    points = [list(point) for point in SearchPolicy().suggest(of, [], 99)]
    assert len(points) == 4
    assert SearchPolicy().suggest(of, as_trials(points[1:3]), 99) == [points[0], points[3]]
    assert SearchPolicy().suggest(of, as_trials(points), 1) == []


def test_a_log_scale_gives_each_decade_its_share() -> None:
    spec = {"parameter": "x", "type": "DOUBLE", "doubleValueSpec": {"minValue": 1e-4, "maxValue": 1.0}}
    for scale, share in (("UNIT_LOG_SCALE", 0.75), ("UNIT_LINEAR_SCALE", 0.1), ("UNIT_REVERSE_LOG_SCALE", 0.01)):
        space = Space(config(parameters=[{**spec, "scaleType": scale}]).parameters)
        below = sum(float(space.draw(Random(n))["x"]) < 0.1 for n in range(1000)) / 1000
        assert below == pytest.approx(share, abs=0.04)


def test_failed_trials_and_those_of_another_space_do_no_harm() -> None:
    of = study(config(parameters=TWO))
    (one, two, three) = as_trials([list(point) for point in SearchPolicy().suggest(of, [], 3)])
    nan = {"metrics": [{"metric": "acc", "value": "NaN"}]}
    trials = [
        replace(one, state="COMPLETED", infeasible=True),
        replace(two, state="COMPLETED", final_measurement=nan),
        replace(three, parameters=[{"parameter": "gone", "floatValue": 1.0}]),
    ]
    points = [repr(list(point)) for point in SearchPolicy().suggest(replace(of, next_trial_id=4), trials, 9)]
    assert len(set(points)) == 2  # of four


# --- the median rule ---


def measured(number: int, values: list[float], state: str = "COMPLETED", seconds: int = 1) -> TrialRecord:
    measurements = [
        {"stepCount": str(step), "elapsedTime": f"{step * seconds}s", "metrics": [{"metric": "acc", "value": value}]}
        for step, value in enumerate(values, 1)
    ]
    return TrialRecord(NAME.trial(number), state, [], 1, measurements=measurements)  # type: ignore[arg-type]


OTHERS = [
    measured(1, [1.0, 3.0, 99.0]),
    measured(2, [2.0, 4.0]),
    measured(3, [3.0, 5.0]),
    measured(4, [0.0], "ACTIVE"),
]


@pytest.mark.parametrize(
    ("values", "goal", "stop"),
    [
        ([2.5, 2.9], "MAXIMIZE", True),  # below 3, the median of the averages 2, 3, 4 up to step 2
        ([3.0, 0.0], "MAXIMIZE", False),  # its best counts
        ([3.1, 3.2], "MINIMIZE", True),
        ([3.0, 9.0], "MINIMIZE", False),
        ([float("nan")], "MAXIMIZE", False),
        ([], "MAXIMIZE", False),
    ],
)
def test_the_median_rule(values: list[float], goal: str, stop: bool) -> None:
    stopping = {"medianAutomatedStoppingConfig": {"useElapsedTime": False}}
    metrics = [{"metric": "acc", "goal": goal}]
    of = study(config(parameters=TWO, metrics=metrics, automatedStoppingConfig=stopping))
    trial = measured(5, values, "ACTIVE")
    decision = SearchPolicy().should_stop(of, [*OTHERS, trial], trial)
    assert decision.stop is stop
    assert decision.reason


def test_elapsed_time_and_too_few_trials() -> None:
    stopping = {"medianAutomatedStoppingConfig": {"useElapsedTime": True}}
    of = study(config(parameters=TWO, automatedStoppingConfig=stopping))
    trial = measured(5, [50.0, 50.0], "ACTIVE", seconds=9)
    assert not SearchPolicy().should_stop(of, OTHERS, trial).stop
    better = [measured(n, [1.0, 1.0, 999.0]) for n in (1, 2, 3)]
    assert SearchPolicy().should_stop(of, better, trial).reason == "Best acc by 18 s: 50, median of 3 trials 333.667."
    assert "2 of 3 trials" in SearchPolicy().should_stop(of, better[:2], trial).reason
    plain = study(config(parameters=TWO))
    assert not SearchPolicy().should_stop(plain, better, trial).stop
