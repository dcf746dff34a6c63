"""Tree-structured Parzen estimator, by Optuna: the extra `optuna`.

Bergstra, Bardenet, Bengio and Kégl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Watanabe,
Tree-Structured Parzen Estimator, 2023.

Optuna's study lives in memory for one request and is filled from ours. It sees coordinates and places in lists, so
scales are ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from enginehouse.tuning.algorithms.base import Problem, Tried, filled_scores
from enginehouse.tuning.space import Axis, Point
from enginehouse.tuning.study_config import Value


class TpeSearch:
    """A `Designer` (see base.py for the contract)."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._trials: Sequence[Tried] = ()

    def update(self, trials: Sequence[Tried]) -> None:
        self._trials = trials

    def suggest(self, first: int, count: int) -> list[Point]:
        with warnings.catch_warnings():
            # Pending trials are told by a feature that Optuna calls experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=(self._problem.seed * 1_000_003 + first) % 2**32, constant_liar=True
            )
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize"] * self._problem.metrics, sampler=sampler)
        scores = filled_scores(self._trials)
        for trial, known in zip(self._trials, scores, strict=True):
            study.add_trial(self._as_optuna(trial, known))
        return [self._asked(study.ask()) for _ in range(count)]

    def _as_optuna(self, trial: Tried, scores: tuple[float, ...] | None) -> Any:
        axes = list(self._problem.space.active(trial.point))
        return optuna.trial.create_trial(
            state=TrialState.RUNNING if scores is None else TrialState.COMPLETE,
            params={name: _place(axis, trial.point[axis.spec.parameter]) for name, axis in axes},
            distributions={name: _distribution(axis) for name, axis in axes},
            values=scores,
        )

    def _asked(self, trial: Any) -> Point:
        point: dict[str, Value] = {}
        for name, axis in self._problem.space.active(point):
            distribution = _distribution(axis)
            place = trial._suggest(name, distribution)
            point[axis.spec.parameter] = _value(axis, place)
        return point


def _distribution(axis: Axis) -> BaseDistribution:
    if axis.is_categorical:
        assert axis.values is not None
        return CategoricalDistribution(tuple(range(len(axis.values))))
    if axis.levels is not None:
        return IntDistribution(0, len(axis.levels) - 1)
    return FloatDistribution(0.0, 1.0)


def _place(axis: Axis, value: Value) -> float | int:
    if axis.levels is None:
        return axis.to_unit(value)
    assert axis.values is not None
    return axis.values.index(value)


def _value(axis: Axis, place: float) -> Value:
    if axis.levels is None:
        return axis.from_unit(place)
    assert axis.values is not None
    return axis.values[int(place)]
