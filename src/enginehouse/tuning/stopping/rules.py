"""Which rule a study has, and its judgement."""

from __future__ import annotations

from collections.abc import Sequence

from enginehouse.metadata.records import TrialRecord
from enginehouse.schemas.optimizer import StudyConfig
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.stopping.curves import Measure
from enginehouse.tuning.stopping.decay_curve import decay_curve_rule
from enginehouse.tuning.stopping.halving import DEFAULT_FACTOR, halving_rule
from enginehouse.tuning.stopping.median import median_rule

_NO_RULE = StopDecision(False, "The study has no rule for stopping trials.")


def judge(config: StudyConfig, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
    """By the rule that the study names, whether a trial should stop."""
    stopping = config.automated_stopping_config
    if stopping is None:
        return _NO_RULE
    if (median := stopping.median_automated_stopping_config) is not None:
        return median_rule(Measure.of(config, by_time=median.use_elapsed_time), trials, trial)
    if (decay := stopping.decay_curve_stopping_config) is not None:
        return decay_curve_rule(Measure.of(config, by_time=decay.use_elapsed_time), trials, trial)
    if (halving := stopping.successive_halving_stopping_config) is not None:
        factor = int(halving.reduction_factor) or DEFAULT_FACTOR
        return halving_rule(Measure.of(config, by_time=halving.use_elapsed_time), trials, trial, factor=factor)
    return _NO_RULE
