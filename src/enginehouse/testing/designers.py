"""Contract tests of algorithms: a new one gets a subclass of `DesignerContract` in tests/tuning_algorithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginehouse.schemas.optimizer import StudyConfig, StudyParameterSpec
from enginehouse.schemas.wire import from_builtins
from enginehouse.tuning.algorithms.base import Problem, Tried, key_of
from enginehouse.tuning.algorithms.catalogue import designer_for
from enginehouse.tuning.space import Point, Space
from enginehouse.tuning.study_config import Value, check_parameters, check_study_config

METRICS = [{"metric": "acc", "goal": "MAXIMIZE"}]
SCALES = st.sampled_from(["UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE"])


@st.composite
def parameters(draw: st.DrawFn, name: str = "p", depth: int = 2, *, finite: bool = False) -> dict[str, Any]:
    """Any parameter, with children for some of its values."""
    kind = draw(st.sampled_from(["INTEGER", "CATEGORICAL", "DISCRETE", *([] if finite else ["DOUBLE"])]))
    spec: dict[str, Any] = {"parameter": name, "type": kind}
    values: Sequence[Any]
    if kind == "DOUBLE":
        low, high = sorted(draw(st.tuples(*[st.floats(1e-9, 1e9)] * 2)))
        return {**spec, "doubleValueSpec": {"minValue": low, "maxValue": high}, "scaleType": draw(SCALES)}
    if kind == "INTEGER":
        first = draw(st.integers(1, 2**40))
        last = first + draw(st.integers(0, 3 if finite else 2**40))
        spec |= {"integerValueSpec": {"minValue": str(first), "maxValue": str(last)}, "scaleType": draw(SCALES)}
        field, values = "parentIntValues", [str(first)]
    elif kind == "DISCRETE":
        values = sorted(draw(st.sets(st.floats(1e-6, 1e6), min_size=1, max_size=3)))
        spec["discreteValueSpec"] = {"values": values}
        if draw(st.booleans()):
            spec["scaleType"] = draw(SCALES)
        field = "parentDiscreteValues"
    else:
        values = sorted(draw(st.sets(st.text(max_size=3), min_size=1, max_size=3)))
        spec["categoricalValueSpec"] = {"values": values}
        field = "parentCategoricalValues"
    if depth and draw(st.booleans()):
        child = draw(parameters(name + "c", depth - 1, finite=finite))
        spec["childParameterSpecs"] = [{**child, field: {"values": values[:1]}}]
    return spec


def spaces(*, finite: bool = False) -> st.SearchStrategy[StudyConfig]:
    """Configurations of studies with two parameters and their children."""
    two = st.tuples(parameters("a", finite=finite), parameters("b", finite=finite))
    return two.map(lambda specs: make_config(parameters=list(specs)))


def make_config(**fields: Any) -> StudyConfig:
    """A study's configuration, from JSON's names."""
    config = from_builtins(StudyConfig, {"metrics": METRICS, **fields})
    check_study_config(config, field="config")
    return config


MIXED = make_config(
    parameters=[
        {
            "parameter": "rate",
            "type": "DOUBLE",
            "doubleValueSpec": {"minValue": 1e-4, "maxValue": 1},
            "scaleType": "UNIT_LOG_SCALE",
        },
        {"parameter": "layers", "type": "INTEGER", "integerValueSpec": {"minValue": "1", "maxValue": "6"}},
        {"parameter": "batch", "type": "DISCRETE", "discreteValueSpec": {"values": [16, 32, 128]}},
        {
            "parameter": "kind",
            "type": "CATEGORICAL",
            "categoricalValueSpec": {"values": ["plain", "momentum"]},
            "childParameterSpecs": [
                {
                    "parameter": "mass",
                    "type": "DOUBLE",
                    "doubleValueSpec": {"minValue": 0.5, "maxValue": 0.99},
                    "scaleType": "UNIT_REVERSE_LOG_SCALE",
                    "parentCategoricalValues": {"values": ["momentum"]},
                }
            ],
        },
    ]
)
"""One parameter of each type, each scale, and a child."""


def check_point(specs: Sequence[StudyParameterSpec], point: Point) -> None:
    """A point of the space, with exactly the parameters that are active there."""
    check_parameters(StudyConfig(parameters=list(specs)), Space(specs).parameters(point), field="point")
    assert {parameter.parameter for parameter in Space(specs).parameters(point)} == set(point)


def score_of(point: Point) -> float:
    """Something to maximise over MIXED, and over anything with numbers."""
    score = 0.0
    for name, value in point.items():
        score -= abs(math.log(abs(float(value)) + 1e-6) + 3.0) if not isinstance(value, str) else len(name)
    return score


class DesignerContract:
    """What every algorithm does; see `tuning.algorithms.base.Designer`."""

    algorithm: str
    finite_only = False
    several_metrics = True

    def suggest(
        self, config: StudyConfig, trials: Sequence[Tried], count: int = 1, *, seed: int = 3
    ) -> list[dict[str, Value]]:
        first = max((trial.number for trial in trials), default=0) + 1
        designer = designer_for(self.algorithm, Problem(Space(config.parameters), len(config.metrics), seed))
        designer.update(trials)
        points = designer.suggest(first, count)
        for point in points:
            check_point(config.parameters, point)
        return [dict(point) for point in points]

    def study(self, config: StudyConfig, trials: int, *, seed: int = 3) -> list[Tried]:
        """One that went on for so many trials, one after the other."""
        tried: list[Tried] = []
        for number in range(1, trials + 1):
            (point,) = self.suggest(config, tried, seed=seed)
            tried.append(Tried(number, point, tuple(score_of(point) for _ in config.metrics)))
        return tried

    @property
    def mixed(self) -> StudyConfig:
        """MIXED, without its DOUBLE parameters for algorithms that can't have them."""
        if not self.finite_only:
            return MIXED
        return StudyConfig(
            metrics=MIXED.metrics,
            parameters=[*MIXED.parameters[1:3], StudyParameterSpec(**_without_children(MIXED.parameters[3]))],
        )

    def test_points_lie_in_any_space_whatever_became_of_earlier_ones(self) -> None:
        algorithm = self

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
        @given(spaces(finite=self.finite_only), st.data())
        def check(config: StudyConfig, data: st.DataObject) -> None:
            tried: list[Tried] = []
            for number in range(1, 10):
                points = algorithm.suggest(config, tried)
                if not points:
                    assert len({key_of(trial.point) for trial in tried}) == Space(config.parameters).size()
                    break
                fate = data.draw(st.sampled_from(["scored", "scored", "huge", "failed", "pending"]))
                scores = {"scored": (score_of(points[0]),), "huge": (-1e300 * number,)}.get(fate)
                tried.append(Tried(number, points[0], scores, pending=fate == "pending"))

        check()

    def test_the_same_trials_give_the_same_suggestions(self) -> None:
        tried = self.study(self.mixed, 12)
        again = self.suggest(self.mixed, tried, 3)
        assert self.suggest(self.mixed, tried, 3) == again
        assert len(again) == 3

    def test_another_seed_gives_another_study(self) -> None:
        if not self.finite_only:
            assert self.study(self.mixed, 3, seed=4) != self.study(self.mixed, 3, seed=5)

    def test_a_study_that_goes_on_elsewhere_is_the_same(self) -> None:
        tried = self.study(self.mixed, 14)
        for cut in (3, 9, 13):
            rebuilt = [Tried(t.number, dict(sorted(t.point.items(), reverse=True)), t.scores) for t in tried[:cut]]
            assert self.suggest(self.mixed, rebuilt)[0] == tried[cut].point

    def test_nothing_but_failures(self) -> None:
        tried: list[Tried] = []
        for number in range(1, 16):
            tried.append(Tried(number, self.suggest(self.mixed, tried)[0]))

    def test_a_batch_of_pending_trials_is_spread(self) -> None:
        tried = self.study(self.mixed, 10)
        batch = self.suggest(self.mixed, tried, 4)
        assert len({key_of(point) for point in batch}) == 4

    def test_several_metrics(self) -> None:
        if self.several_metrics:
            two = [*METRICS, {"metric": "speed", "goal": "MAXIMIZE"}]
            config = StudyConfig(metrics=from_builtins(StudyConfig, {"metrics": two}).metrics)
            config.parameters = self.mixed.parameters
            assert len(self.study(config, 13)) == 13

    def test_all_scores_alike(self) -> None:
        tried: list[Tried] = []
        for number in range(1, 13):
            tried.append(Tried(number, self.suggest(self.mixed, tried)[0], (0.5,)))
        assert len({key_of(trial.point) for trial in tried}) > 6

    def test_a_request_for_nothing(self) -> None:
        assert self.suggest(self.mixed, [], 0) == []


def _without_children(spec: StudyParameterSpec) -> dict[str, Any]:
    return {
        "parameter": spec.parameter,
        "type": spec.type,
        "categorical_value_spec": spec.categorical_value_spec,
    }


__all__ = ["MIXED", "DesignerContract", "check_point", "make_config", "parameters", "score_of", "spaces"]
