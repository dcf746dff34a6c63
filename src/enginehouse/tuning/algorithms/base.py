"""The contract of an algorithm: it is told all trials of a study, and says what to try next.

Called by `tuning.search`, which makes a new designer for every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from enginehouse.tuning.space import Point, Space
from enginehouse.tuning.study_config import Value


@dataclass(frozen=True)
class Tried:
    """A trial, as an algorithm sees it.

    Attributes:
        number: of the trial, from 1.
        point: its parameters.
        scores: the final value of each metric, turned so that more is better; None while the trial goes on, and of
            one that failed, was infeasible or ended with something that is no finite number.
        pending: whether it goes on.
    """

    number: int
    point: Point
    scores: tuple[float, ...] | None = None
    pending: bool = False

    @property
    def failed(self) -> bool:
        return self.scores is None and not self.pending


class Designer(Protocol):
    """How an algorithm works on a study.

    A designer is made from the space, the number of metrics and the study's seed, keeps nothing beyond one request
    and is used by one thread. What it suggests is a function of these and of the trials: the same ones give the same
    suggestions, in any process. Suggestions are points of the space (see space.py). Trials that go on count: a batch
    is asked for in one request or one by one.
    """

    def update(self, trials: Sequence[Tried]) -> None:
        """Tell all trials of the study, by number. Called once, before `suggest`."""
        ...

    def suggest(self, first: int, count: int) -> list[Point]:
        """Points for the trials with the numbers from `first` on.

        Returns:
            `count` points; fewer only if the space is finite and every other point of it was tried.
        """
        ...


@dataclass(frozen=True)
class Problem:
    """What a designer is made from.

    Attributes:
        space: of the study.
        metrics: how many there are.
        seed: of all that is random.
    """

    space: Space
    metrics: int
    seed: int


def key_of(point: Point) -> frozenset[tuple[str, Value]]:
    """The same for the same point, however it is ordered."""
    return frozenset(point.items())


def filled_scores(trials: Sequence[Tried]) -> list[tuple[float, ...] | None]:
    """The scores of each trial; of one that failed the worst that any had; None while it goes on or none is known."""
    known = [trial.scores for trial in trials if trial.scores is not None]
    worst = tuple(min(column) for column in zip(*known, strict=True)) if known else None
    return [worst if trial.failed else trial.scores for trial in trials]
