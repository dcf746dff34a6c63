"""Random and grid search, and the median rule: decisions that need nothing but the study itself.

Each suggestion is drawn from the study's seed and the trial's number, so nothing is kept between requests and a
restart changes nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import Any

from enginehouse.core.errors import FailedPrecondition
from enginehouse.core.units import parse_duration_s
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.optimizer import Measurement, StudyConfig, StudyParameterSpec, TrialParameter
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.study_config import Value, active_children, parameter_of

MIN_COMPLETED_TRIALS = 3
"""How many other trials the median rule needs; a choice of ours, the original named none."""
_GOING_ON = StopDecision(False, "The study has no rule for stopping trials.")


class SearchPolicy:
    """A `Policy` (see policy.py for the contract): GRID_SEARCH, and random search for what the service chooses."""

    def check(self, config: StudyConfig) -> None:
        if config.algorithm == "GAUSSIAN_PROCESS_BANDIT":
            raise FailedPrecondition(
                "GAUSSIAN_PROCESS_BANDIT is not available in this release; leave the algorithm out or choose "
                "RANDOM_SEARCH or GRID_SEARCH.",
                field="study.study_config.algorithm",
            )
        stopping = config.automated_stopping_config
        if stopping and stopping.decay_curve_stopping_config is not None:
            raise FailedPrecondition(
                "Decay curves are not available in this release; choose median_automated_stopping_config.",
                field="study.study_config.automated_stopping_config",
            )

    def suggest(
        self, study: StudyRecord, trials: Sequence[TrialRecord], count: int
    ) -> Sequence[Sequence[TrialParameter]]:
        config = from_builtins(StudyConfig, study.config)
        if config.algorithm == "GRID_SEARCH":
            tried = {_key(trial.parameters) for trial in trials}
            points = grid(config.parameters)
            return list(islice((point for point in points if _key(map(to_builtins, point)) not in tried), count))
        numbers = range(study.next_trial_id, study.next_trial_id + count)
        return [draw(config.parameters, Random(f"{study.seed}/{number}")) for number in numbers]

    def should_stop(self, study: StudyRecord, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
        config = from_builtins(StudyConfig, study.config)
        stopping = config.automated_stopping_config
        if stopping is None or stopping.median_automated_stopping_config is None:
            return _GOING_ON
        by_time = stopping.median_automated_stopping_config.use_elapsed_time
        return median_rule(config, trials, trial, by_time=by_time)


def draw(specs: Sequence[StudyParameterSpec], random: Random) -> list[TrialParameter]:
    """A random point of the space, uniform in each parameter's scale; children where their parent has their value."""
    point = []
    for spec in specs:
        value = _value_at(spec, random.random())
        point += [parameter_of(spec, value), *draw(active_children(spec, value), random)]
    return point


def grid(specs: Sequence[StudyParameterSpec]) -> Iterator[list[TrialParameter]]:
    """All points of a space without DOUBLE parameters, the last parameter changing first."""
    if not specs:
        yield []
        return
    first, *rest = specs
    for value in _values(first):
        for children in grid(active_children(first, value)):
            for others in grid(rest):
                yield [parameter_of(first, value), *children, *others]


def median_rule(
    config: StudyConfig, trials: Sequence[TrialRecord], trial: TrialRecord, *, by_time: bool
) -> StopDecision:
    """Stop a trial whose best value is worse than the median of what others averaged up to the same moment.

    Judged by the study's first metric (Golovin et al., Google Vizier, KDD 2017, section 3.4.2).

    Args:
        by_time: compare at the same elapsed time, not at the same step.
    """
    own = _curve(config, trial, by_time=by_time)
    if not own:
        return StopDecision(False, "The trial has reported nothing yet.")
    moment, best = max(at for at, _ in own), max(score for _, score in own)
    averages = []
    for other in trials:
        if other.state == "COMPLETED" and not other.infeasible and other.name != trial.name:
            scores = [score for at, score in _curve(config, other, by_time=by_time) if at <= moment]
            if scores:
                averages.append(statistics.fmean(scores))
    if len(averages) < MIN_COMPLETED_TRIALS:
        return StopDecision(False, f"{len(averages)} of {MIN_COMPLETED_TRIALS} trials to compare with have ended.")
    median = statistics.median(averages)
    sign = _sign(config)
    at = f"{moment:g} s" if by_time else f"step {moment:g}"
    told = f"median of {len(averages)} trials {median * sign:g}"
    return StopDecision(best < median, f"Best {config.metrics[0].metric} by {at}: {best * sign:g}, {told}.")


def _curve(config: StudyConfig, trial: TrialRecord, *, by_time: bool) -> list[tuple[float, float]]:
    """(moment, score) of each measurement of the first metric, turned so that more is better, without NaN."""
    sign, curve = _sign(config), []
    for each in trial.measurements:
        measurement = from_builtins(Measurement, each)
        elapsed = measurement.elapsed_time
        moment = (parse_duration_s(elapsed) if elapsed else 0.0) if by_time else float(measurement.step_count)
        curve += [
            (moment, metric.value * sign)
            for metric in measurement.metrics
            if metric.metric == config.metrics[0].metric and not math.isnan(metric.value)
        ]
    return curve


def _sign(config: StudyConfig) -> float:
    return -1.0 if config.metrics[0].goal == "MINIMIZE" else 1.0


def _values(spec: StudyParameterSpec) -> Sequence[Value]:
    """All values of a parameter that is no DOUBLE."""
    if spec.integer_value_spec:
        return range(spec.integer_value_spec.min_value, spec.integer_value_spec.max_value + 1)
    listed = spec.discrete_value_spec or spec.categorical_value_spec
    assert listed is not None
    return listed.values


def _value_at(spec: StudyParameterSpec, u: float) -> Value:
    """The value at `u`, in [0, 1), of the parameter's scale: each of a list or of the whole numbers has its share."""
    if spec.double_value_spec:
        low, high = spec.double_value_spec.min_value, spec.double_value_spec.max_value
        return min(max(_scaled(spec, low, high, u), low), high)
    if spec.integer_value_spec:
        first, last = int(spec.integer_value_spec.min_value), int(spec.integer_value_spec.max_value)
        # From half below to half above, so that the ends have the share of the others.
        return min(max(round(_scaled(spec, first - 0.5, last + 0.5, u)), first), last)
    values = _values(spec)
    return values[int(u * len(values))]


def _scaled(spec: StudyParameterSpec, low: float, high: float, u: float) -> float:
    if spec.scale_type == "UNIT_LOG_SCALE":
        return float(low * (high / low) ** u)
    if spec.scale_type == "UNIT_REVERSE_LOG_SCALE":
        return float(low + high - low * (high / low) ** (1 - u))
    return low * (1 - u) + high * u


def _key(parameters: Iterable[dict[str, Any]]) -> frozenset[tuple[tuple[str, Any], ...]]:
    return frozenset(tuple(sorted(parameter.items())) for parameter in parameters)
