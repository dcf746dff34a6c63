"""Quasi-random search: a scrambled Sobol sequence, which fills the space more evenly than chance.

Owen, Scrambling Sobol' and Niederreiter-Xing points, Journal of Complexity 14 (1998).
"""

from __future__ import annotations

from collections.abc import Sequence

from enginehouse.tuning.algorithms.base import Problem, Tried
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.numerics import stats
from enginehouse.tuning.space import Point


class QuasiRandomSearch:
    """A `Designer` (see base.py for the contract): the trial's number is its place in the sequence."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def update(self, trials: Sequence[Tried]) -> None:
        pass

    def suggest(self, first: int, count: int) -> list[Point]:
        space = self._problem.space
        sequence = stats.qmc.Sobol(len(space.axes), rng=np.random.default_rng(self._problem.seed))
        if first > 1:  # scipy fails on 0
            sequence.fast_forward(first - 1)
        return [space.at_shares([float(u) for u in row]) for row in _next(sequence, count)]


def _next(sequence: stats.qmc.Sobol, count: int) -> np.ndarray:
    """(count, n_axes) float64 in [0, 1); one by one, since scipy warns of counts that are no power of 2."""
    return np.vstack([np.empty((0, sequence.d)), *(sequence.random(1) for _ in range(count))])
