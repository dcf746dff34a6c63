"""Learning curves: what trials reported while they went on, as numbers that can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from enginehouse.core.units import parse_duration_s
from enginehouse.metadata.records import TrialRecord
from enginehouse.schemas.optimizer import StudyConfig


@dataclass(frozen=True)
class Curve:
    """The study's first metric over a trial.

    Attributes:
        moments: steps or seconds, rising.
        scores: turned so that more is better, finite; as many.
    """

    moments: tuple[float, ...]
    scores: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.moments)

    @property
    def last(self) -> float:
        """The moment of the latest measurement."""
        return self.moments[-1]

    def until(self, moment: float) -> Curve:
        """What was known by a moment."""
        kept = sum(at <= moment for at in self.moments)
        return Curve(self.moments[:kept], self.scores[:kept])


@dataclass(frozen=True)
class Measure:
    """How a study's trials are compared.

    Attributes:
        metric: the name.
        sign: -1 where less is better.
        by_time: at the same elapsed time, not at the same step.
    """

    metric: str
    sign: float
    by_time: bool

    @classmethod
    def of(cls, config: StudyConfig, *, by_time: bool) -> Measure:
        """By the study's first metric."""
        first = config.metrics[0]
        return cls(first.metric, -1.0 if first.goal == "MINIMIZE" else 1.0, by_time)

    def curve(self, trial: TrialRecord) -> Curve:
        """What a trial reported, without what is no finite number.

        The messages are read as they are stored: a judgement looks at all measurements of a study, and making
        messages of them would take ten times as long.
        """
        pairs = [
            (self._moment(measurement), value * self.sign)
            for measurement in trial.measurements
            for metric in measurement.get("metrics", ())
            if metric.get("metric") == self.metric and math.isfinite(value := float(metric.get("value", 0.0)))
        ]
        pairs.sort(key=lambda pair: pair[0])
        return Curve(tuple(at for at, _ in pairs), tuple(score for _, score in pairs))

    def _moment(self, measurement: dict[str, Any]) -> float:
        if not self.by_time:
            return float(measurement.get("stepCount", 0))
        elapsed = measurement.get("elapsedTime")
        return parse_duration_s(elapsed) if elapsed else 0.0

    def moment(self, at: float) -> str:
        """A moment in words."""
        return f"{at:g} s" if self.by_time else f"step {at:g}"

    def value(self, score: float) -> float:
        """As the trial reported it."""
        return score * self.sign


def others(trials: Sequence[TrialRecord], trial: TrialRecord) -> list[TrialRecord]:
    """Those to compare with: all other trials that worked, or still may."""
    return [other for other in trials if other.name != trial.name and not other.infeasible]
