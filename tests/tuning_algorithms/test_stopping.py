"""Early stopping saves steps and keeps the trial that would have been best; every judgement says why."""

from dataclasses import replace
from typing import Any

import pytest

from enginehouse.core.errors import InvalidArgument
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.testing.designers import make_config
from enginehouse.testing.learning_curves import FAMILIES, NAME, run_study
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.search import SearchPolicy

PARAMETER = {"parameter": "x", "type": "DOUBLE", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}
SEEDS = range(4)
"""Few, for the time that they take; bench/early_stopping.py runs many."""


@pytest.mark.parametrize("family", FAMILIES)
def test_decay_curves_save_steps_and_keep_the_best(family: str) -> None:
    outcomes = [run_study(family, {"decayCurveStoppingConfig": {}}, seed=seed) for seed in SEEDS]
    assert sum(outcome.saved for outcome in outcomes) / len(outcomes) > 0.2
    assert not any(outcome.lost for outcome in outcomes)


def judged(stopping: dict[str, Any], others: list[list[float]], own: list[float], goal: str) -> StopDecision:
    config = {
        "metrics": [{"metric": "acc", "goal": goal}],
        "parameters": [PARAMETER],
        "automatedStoppingConfig": stopping,
    }
    study = StudyRecord(name=NAME, config=config, create_time_ns=1, seed=1)
    records = [
        TrialRecord(NAME.trial(number), "COMPLETED", [], 1, measurements=measured(values))
        for number, values in enumerate([*others, own], 1)
    ]
    trial = replace(records[-1], state="ACTIVE")
    return SearchPolicy().should_stop(study, [*records[:-1], trial], trial)


def measured(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"stepCount": str(step), "metrics": [{"metric": "acc", "value": value}]}
        for step, value in enumerate(values, 1)
    ]


RISING = [[end * (1 - 0.5**step) for step in range(1, 13)] for end in (0.5, 0.6, 0.7, 0.8, 0.9)]


@pytest.mark.parametrize(
    ("own", "stop"),
    [
        ([0.30, 0.45, 0.52, 0.56, 0.58, 0.59], True),
        ([0.49, 0.74, 0.86, 0.92, 0.95, 0.97], False),
        ([0.1, 0.1, 0.1], False),  # too short to tell
    ],
)
def test_the_decay_curve_rule(own: list[float], stop: bool) -> None:
    for sign, goal in ((1, "MAXIMIZE"), (-1, "MINIMIZE")):
        others = [[sign * value for value in curve] for curve in RISING]
        decision = judged({"decayCurveStoppingConfig": {}}, others, [sign * value for value in own], goal)
        assert decision.stop is stop
    assert decision.reason
    if stop:
        assert "the chance to beat the best, -0.89978, is 0." in decision.reason


def test_the_decay_curve_rule_waits_for_others() -> None:
    decision = judged({"decayCurveStoppingConfig": {}}, RISING[:4], [0.1] * 6, "MAXIMIZE")
    assert decision == StopDecision(False, "4 of 5 trials to compare with have run to their end.")


def test_nan_and_flat_curves_do_no_harm() -> None:
    flat = [[0.5] * 12] * 5
    for own in ([float("nan")] * 6, [0.5] * 6, [float("inf"), 0.1, 0.1, 0.1, 0.1]):
        assert judged({"decayCurveStoppingConfig": {}}, flat, own, "MAXIMIZE").reason


def test_a_flat_curve_is_as_hopeless_as_others() -> None:
    flat = [[end] * 12 for end in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert judged({"decayCurveStoppingConfig": {}}, flat, [0.1] * 6, "MAXIMIZE").stop
    assert not judged({"decayCurveStoppingConfig": {}}, flat, [0.95] * 6, "MAXIMIZE").stop


@pytest.mark.parametrize(
    ("own", "stop", "place"), [([0.44, 0.66, 0.77, 0.8], False, "place 2 of 6"), ([0.1] * 4, True, "place 6 of 6")]
)
def test_halving_keeps_the_best_third(own: list[float], stop: bool, place: str) -> None:
    decision = judged({"successiveHalvingStoppingConfig": {}}, RISING, own, "MAXIMIZE")
    assert decision.stop is stop
    assert "acc at step 4: " in decision.reason
    assert decision.reason.endswith(f"{place}; the best 2 go on.")


def test_halving_before_the_first_rung_and_without_company() -> None:
    halving = {"successiveHalvingStoppingConfig": {"reductionFactor": 2}}
    assert "has run to its end" in judged(halving, [], [0.1], "MAXIMIZE").reason
    assert "of more than 2 trials" in judged(halving, RISING[:1], [0.1] * 6, "MAXIMIZE").reason


def test_one_rule_is_named() -> None:
    with pytest.raises(InvalidArgument, match="Name one way"):
        make_config(
            parameters=[PARAMETER],
            automatedStoppingConfig={"medianAutomatedStoppingConfig": {}, "successiveHalvingStoppingConfig": {}},
        )
    with pytest.raises(InvalidArgument, match="One of at least 2"):
        make_config(
            parameters=[PARAMETER],
            automatedStoppingConfig={"successiveHalvingStoppingConfig": {"reductionFactor": 1}},
        )
