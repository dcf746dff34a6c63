"""A study's decisions by its configuration: the algorithm that it names suggests, the rule that it names stops.

Records become what an algorithm or a rule understands; nothing is kept between requests, so a restart changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.optimizer import Measurement, StudyConfig, TrialParameter
from enginehouse.schemas.wire import from_builtins
from enginehouse.tuning.algorithms.base import Problem, Tried
from enginehouse.tuning.algorithms.catalogue import check_algorithm, designer_for
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.space import Space
from enginehouse.tuning.stopping.rules import judge


class SearchPolicy:
    """A `Policy` (see policy.py for the contract): the algorithms of algorithms/ and the rules of stopping/."""

    def check(self, config: StudyConfig) -> None:
        check_algorithm(config.algorithm, field="study.study_config.algorithm")

    def suggest(
        self, study: StudyRecord, trials: Sequence[TrialRecord], count: int
    ) -> Sequence[Sequence[TrialParameter]]:
        config = from_builtins(StudyConfig, study.config)
        space = Space(config.parameters)
        designer = designer_for(config.algorithm, Problem(space, len(config.metrics), study.seed))
        designer.update([tried for trial in trials if (tried := _tried(trial, space, config)) is not None])
        return [space.parameters(point) for point in designer.suggest(study.next_trial_id, count)]

    def should_stop(self, study: StudyRecord, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
        return judge(from_builtins(StudyConfig, study.config), trials, trial)


def _tried(trial: TrialRecord, space: Space, config: StudyConfig) -> Tried | None:
    """None for a trial that is no point of the space."""
    point = space.point([from_builtins(TrialParameter, each) for each in trial.parameters])
    if point is None:
        return None
    number = trial.name.trial_id
    if trial.state != "COMPLETED":
        return Tried(number, point, pending=True)
    return Tried(number, point, None if trial.infeasible else _scores(trial, config))


def _scores(trial: TrialRecord, config: StudyConfig) -> tuple[float, ...] | None:
    """The final value of each metric, turned so that more is better; None if one is missing or no finite number."""
    if trial.final_measurement is None:
        return None
    final = from_builtins(Measurement, trial.final_measurement)
    values = {metric.metric: metric.value for metric in final.metrics}
    signs = {spec.metric: -1.0 if spec.goal == "MINIMIZE" else 1.0 for spec in config.metrics}
    scores = tuple(values.get(name, math.nan) * sign for name, sign in signs.items())
    return scores if all(map(math.isfinite, scores)) else None
