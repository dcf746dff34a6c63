"""Asynchronous successive halving: at each of a few moments only the best share of the trials goes on.

Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020 (ASHA), in the variant that stops trials
instead of pausing them.
"""

from __future__ import annotations

from collections.abc import Sequence

from enginehouse.metadata.records import TrialRecord
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.stopping.curves import Measure, others

DEFAULT_FACTOR = 3
"""One of so many goes on."""


def halving_rule(
    measure: Measure, trials: Sequence[TrialRecord], trial: TrialRecord, *, factor: int = DEFAULT_FACTOR
) -> StopDecision:
    """Stop a trial that was not among the best 1/factor of all that reached the latest rung that it has reached.

    The rungs are the length of the longest completed trial, divided by factor, factor², and so on.
    """
    own = measure.curve(trial)
    if not own:
        return StopDecision(False, "The trial has reported nothing yet.")
    rivals = others(trials, trial)
    curves = [curve for other in rivals if (curve := measure.curve(other))]
    ended = [measure.curve(other) for other in rivals if other.state == "COMPLETED"]
    end = max((curve.last for curve in ended if curve), default=0.0)
    if end <= 0:
        return StopDecision(False, "No trial has run to its end, by which the rungs are set.")
    rung = end / factor
    while rung > own.last:
        rung /= factor
        if rung < end * 1e-6:
            break
    if rung < own.moments[0]:
        return StopDecision(False, "The trial has not reached a rung yet.")
    here = own.until(rung).scores[-1]
    scores = [curve.until(rung).scores[-1] for curve in curves if curve.last >= rung >= curve.moments[0]]
    count = len(scores) + 1
    if count <= factor:
        return StopDecision(False, f"{count} of more than {factor} trials have reached {measure.moment(rung)}.")
    place = 1 + sum(score > here for score in scores)
    allowed = max(count // factor, 1)
    reason = (
        f"{measure.metric} at {measure.moment(rung)}: {measure.value(here):g}, place {place} of {count}; "
        f"the best {allowed} go on."
    )
    return StopDecision(place > allowed, reason)
