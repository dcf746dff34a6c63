"""Grid search: all points of a space without DOUBLE parameters, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from enginehouse.schemas.optimizer import StudyParameterSpec
from enginehouse.tuning.algorithms.base import Problem, Tried, key_of
from enginehouse.tuning.space import Axis, Point
from enginehouse.tuning.study_config import Value, active_children


class GridSearch:
    """A `Designer` (see base.py for the contract) that leaves out what was tried, by whomever."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._tried: set[frozenset[tuple[str, Value]]] = set()

    def update(self, trials: Sequence[Tried]) -> None:
        self._tried = {key_of(trial.point) for trial in trials}

    def suggest(self, first: int, count: int) -> list[Point]:
        points = grid(self._problem.space.specs)
        return list(islice((point for point in points if key_of(point) not in self._tried), count))


def grid(specs: Sequence[StudyParameterSpec]) -> Iterator[dict[str, Value]]:
    """All points of a space without DOUBLE parameters, the last parameter changing first."""
    if not specs:
        yield {}
        return
    head, *rest = specs
    for value in Axis(head).values or ():
        for children in grid(active_children(head, value)):
            for others in grid(rest):
                yield {head.parameter: value, **children, **others}
