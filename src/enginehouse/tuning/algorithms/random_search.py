"""Random search: every trial drawn from the study's seed and its own number."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from enginehouse.tuning.algorithms.base import Problem, Tried
from enginehouse.tuning.space import Point


class RandomSearch:
    """A `Designer` (see base.py for the contract) that is uniform in each parameter's scale and looks at no trial."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def update(self, trials: Sequence[Tried]) -> None:
        pass

    def suggest(self, first: int, count: int) -> list[Point]:
        return [
            self._problem.space.draw(Random(f"{self._problem.seed}/{number}"))
            for number in range(first, first + count)
        ]
