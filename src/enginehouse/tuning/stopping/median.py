"""The median rule (Golovin et al., Google Vizier, KDD 2017, section 3.4.2)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from enginehouse.metadata.records import TrialRecord
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.stopping.curves import Measure, others

MIN_COMPLETED_TRIALS = 3
"""How many other trials the rule needs; a choice of ours, the original named none."""


def median_rule(measure: Measure, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
    """Stop a trial whose best value is worse than the median of what others averaged up to the same moment."""
    own = measure.curve(trial)
    if not own:
        return StopDecision(False, "The trial has reported nothing yet.")
    best = max(own.scores)
    completed = [other for other in others(trials, trial) if other.state == "COMPLETED"]
    curves = [measure.curve(other).until(own.last) for other in completed]
    averages = [statistics.fmean(curve.scores) for curve in curves if curve]
    if len(averages) < MIN_COMPLETED_TRIALS:
        return StopDecision(False, f"{len(averages)} of {MIN_COMPLETED_TRIALS} trials to compare with have ended.")
    median = statistics.median(averages)
    told = f"median of {len(averages)} trials {measure.value(median):g}"
    return StopDecision(
        best < median,
        f"Best {measure.metric} by {measure.moment(own.last)}: {measure.value(best):g}, {told}.",
    )
