"""Covariance matrix adaptation, by the library that Optuna uses: the extra `optuna`. For many trials of many numbers.

Hansen, The CMA Evolution Strategy: A Tutorial, 2016. Categories are numbered, so it suits spaces with few of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmaes import CMA

from enginehouse.tuning.algorithms.base import Problem, Tried, filled_scores
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.space import Point

FIRST_DEVIATION = 1 / 4
"""Of the unit cube's width."""


class CmaEsSearch:
    """A `Designer` (see base.py for the contract), for the first metric.

    The trials that have ended make generations in the order of their numbers; whatever was suggested for them, they
    move the distribution that the next suggestion is drawn from.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._trials: Sequence[Tried] = ()

    def update(self, trials: Sequence[Tried]) -> None:
        self._trials = trials

    def suggest(self, first: int, count: int) -> list[Point]:
        space = self._problem.space
        axes = max(len(space.axes), 2)  # fewer are refused by the library; the second one is not looked at
        strategy = CMA(
            mean=np.full(axes, 0.5),
            sigma=FIRST_DEVIATION,
            bounds=np.array([[0.0, 1.0]] * axes),
            seed=self._problem.seed % 2**32,
        )
        size = strategy.population_size
        ended = [
            (np.resize(np.clip(space.to_unit(trial.point), 0.0, 1.0), axes), -scores[0])
            for trial, scores in zip(self._trials, filled_scores(self._trials), strict=True)
            if scores is not None
        ]
        for start in range(0, len(ended) - size + 1, size):
            strategy.tell(ended[start : start + size])
        points: list[Point] = []
        for number in range(first, first + count):
            strategy.reseed_rng((self._problem.seed * 1_000_003 + number) % 2**32)
            points.append(space.from_unit([float(u) for u in strategy.ask()[: len(space.axes)]]))
        return points
