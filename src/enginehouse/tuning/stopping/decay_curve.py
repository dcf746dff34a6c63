"""The decay curve rule: stop a trial that is unlikely to end better than the best one that has ended.

How the trial will end is foretold twice, and the hopeful forecast counts:

* from its own curve: y(t) = end + b f(t), where f falls to 0 at the end as a power or an exponential of time does;
  each way of falling is a Bayesian linear regression, weighed by its evidence (Swersky, Snoek and Adams, Freeze-Thaw
  Bayesian Optimization, 2014; Domhan, Springenberg and Hutter, Speeding up Automatic Hyperparameter Optimization by
  Extrapolation of Learning Curves, IJCAI 2015);
* from the others: how trials ended that stood as this one at the same moment. It knows what no single curve shows,
  that early values tell little in this study.

A trial that is low and flat goes on, too, where others were as low and flat once and rose so much that it might
become the best.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.metadata.records import TrialRecord
from enginehouse.tuning.policy import StopDecision
from enginehouse.tuning.stopping.curves import Curve, Measure, others

MIN_COMPLETED_TRIALS = 5
"""How many trials must have run to the end before any is stopped."""
MIN_MEASUREMENTS = 4
MIN_CHANCE = 0.01
"""A trial goes on while its chance to end better than the best is this."""
_WHOLE = 0.9
"""The share of the longest trial that a trial must have run for its last value to be an end."""
_MOST_POINTS = 60
_LEAST_NOISE = 1e-4
"""Of the measurements, in parts of what ends differ by."""
_MARGIN = 1.25
"""By how much more than others it may rise."""
_LATEST = 3
"""Where a trial stands is the mean of so many measurements."""


@dataclass(frozen=True)
class Forecast:
    """Of a trial's last value: a distribution of Student's type.

    Attributes:
        freedom: degrees of it; inf for a normal one.
    """

    mean: float
    deviation: float
    freedom: float = math.inf

    def chance_above(self, score: float) -> float:
        z = (score - self.mean) / max(self.deviation, 1e-300)
        if math.isfinite(self.freedom):
            # Wallace, Annals of Mathematical Statistics 30 (1959).
            n = self.freedom
            grown = math.sqrt(n * math.log1p(min(z * z / n, 1e300)))
            z = math.copysign(grown * (8 * n + 1) / (8 * n + 3), z)
        return 0.5 * math.erfc(z / math.sqrt(2))


def decay_curve_rule(measure: Measure, trials: Sequence[TrialRecord], trial: TrialRecord) -> StopDecision:
    """Stop a trial whose chance to end better than the best completed one is below MIN_CHANCE."""
    own = measure.curve(trial)
    if len(own.moments) < MIN_MEASUREMENTS:
        said = f"{len(own.moments)} of the {MIN_MEASUREMENTS} measurements that a forecast needs were reported."
        return StopDecision(False, said)
    completed = [other for other in others(trials, trial) if other.state == "COMPLETED"]
    curves = [curve for other in completed if (curve := measure.curve(other))]
    end = max((curve.last for curve in curves), default=0.0)
    whole = [curve for curve in curves if curve.last >= _WHOLE * end]
    if len(whole) < MIN_COMPLETED_TRIALS:
        said = f"{len(whole)} of {MIN_COMPLETED_TRIALS} trials to compare with have run to their end."
        return StopDecision(False, said)
    if own.last >= end:
        return StopDecision(False, "The trial has run as long as those that have ended.")
    best = max(curve.scores[-1] for curve in whole)
    if (reached := highest_late_rise(own, end, whole)) >= best:
        said = f"Others that stood as low have risen late; so might this one, to {measure.value(reached):g}."
        return StopDecision(False, said)
    forecasts = [by_itself(own, end, whole), by_others(own, whole)]
    chances = [forecast.chance_above(best) for forecast in forecasts]
    chance, forecast = max(zip(chances, forecasts, strict=True), key=lambda pair: pair[0])
    reason = (
        f"{measure.metric} will be {measure.value(forecast.mean):g} ± {forecast.deviation:.2g} at "
        f"{measure.moment(end)} by its curve until {measure.moment(own.last)}; the chance to beat the best, "
        f"{measure.value(best):g}, is {chance:.1%}."
    )
    return StopDecision(chance < MIN_CHANCE, reason)


def by_others(own: Curve, whole: Sequence[Curve]) -> Forecast:
    """The end of a trial from where it stands, by a line through the other trials, drawn towards the slope 1."""
    pairs = [(_standing(curve.until(own.last)), curve.scores[-1]) for curve in whole if curve.moments[0] <= own.last]
    if len(pairs) < MIN_COMPLETED_TRIALS:
        return Forecast(0.0, math.inf)
    starts, ends = [start for start, _ in pairs], [end for _, end in pairs]
    count, middle, mean_end = len(pairs), statistics.fmean(starts), statistics.fmean(ends)
    spread = sum((start - middle) ** 2 for start in starts)
    together = sum((start - middle) * (end - mean_end) for start, end in pairs)
    pull = 2 * spread / count
    slope = (together + pull) / (spread + pull) if spread > 0 else 1.0
    squares = sum((end - mean_end - slope * (start - middle)) ** 2 for start, end in pairs)
    here = _standing(own) - middle
    reach = 1 + 1 / count + (here * here / (spread + pull) if spread > 0 else 0.0)
    return Forecast(mean_end + slope * here, math.sqrt(squares / (count - 2) * reach), count - 2)


def highest_late_rise(own: Curve, end: float, whole: Sequence[Curve]) -> float:
    """Where the trial would end if it rose as the best of those that once lay as low and as flat; -inf without."""
    blur = 2 * math.sqrt(_noise(own.scores))
    standing, trend = _standing(own), _trend(own.scores)
    reached = -math.inf
    for curve in whole:
        scores = curve.scores
        for place in range(len(scores), MIN_MEASUREMENTS - 1, -1):
            as_low = sum(scores[place - _LATEST : place]) / _LATEST <= standing + blur
            if as_low and _trend(scores[:place]) <= trend + blur:
                later = curve.until(curve.moments[place - 1] + end - own.last).scores[-1]
                reached = max(reached, standing + _MARGIN * (later - standing))
                break
    return reached


def by_itself(own: Curve, end: float, whole: Sequence[Curve]) -> Forecast:
    """The end of a trial from its own curve.

    Args:
        end: the moment that it will run to.
        whole: trials that ended, by which an end is what could be expected before anything was measured.
    """
    moments, scores = _thinned(own)
    ends = [curve.scores[-1] for curve in whole]
    spread = 2 * max(statistics.pstdev(ends), max(scores) - min(scores)) + 1e-100
    # A flat curve has no noise of its own, and without any nothing can be told.
    noise = max(_noise(scores), (_LEAST_NOISE * spread) ** 2)
    expected = statistics.fmean(ends)
    found = [_regressed(shape, scores, noise, expected, spread) for shape in _shapes(moments, end)]
    top = max(evidence for evidence, _, _ in found)
    weights = [math.exp(evidence - top) for evidence, _, _ in found]
    total = sum(weights)
    mean = sum(weight * m for weight, (_, m, _) in zip(weights, found, strict=True)) / total
    variance = sum(w * (v + (m - mean) ** 2) for w, (_, m, v) in zip(weights, found, strict=True)) / total
    return Forecast(mean, math.sqrt(variance + noise), len(scores))


def _shapes(moments: Sequence[float], end: float) -> list[list[float]]:
    """Ways to fall from 1 at the first moment to 0 at the end, at the moments."""
    first = moments[0]
    offset = max(first, end / 1000, 1e-9)
    shapes = []
    for power in (0.3, 0.6, 1.0, 2.0):
        last = (end - first + offset) ** -power
        top = offset**-power - last
        shapes.append([((at - first + offset) ** -power - last) / top for at in moments])
    for width in (0.03, 0.1, 0.3, 1.0):
        last = math.exp(-(end - first) / (width * end))
        shapes.append([(math.exp(-(at - first) / (width * end)) - last) / (1 - last) for at in moments])
    return shapes


def _regressed(
    shape: Sequence[float], scores: Sequence[float], noise: float, expected: float, spread: float
) -> tuple[float, float, float]:
    """Logarithm of the evidence, and mean and variance of the end, for y = end + b shape.

    Priors: end ~ N(expected, spread²), b ~ N(0, (2 spread)²). Bishop, Pattern Recognition and Machine Learning
    (2006), equations 3.50, 3.51 and 3.86.
    """
    prior_a, prior_b = 1 / spread**2, 1 / (2 * spread) ** 2
    y = [score - expected for score in scores]
    aa = len(y) / noise + prior_a
    ab = sum(shape) / noise
    bb = sum(f * f for f in shape) / noise + prior_b
    ya, yb = sum(y) / noise, sum(f * v for f, v in zip(shape, y, strict=True)) / noise
    determinant = aa * bb - ab * ab
    a, b = (bb * ya - ab * yb) / determinant, (aa * yb - ab * ya) / determinant
    residual = sum((v - a - b * f) ** 2 for f, v in zip(shape, y, strict=True)) / noise
    evidence = 0.5 * (math.log(prior_a) + math.log(prior_b) - math.log(determinant))
    evidence -= 0.5 * (residual + prior_a * a * a + prior_b * b * b + len(y) * math.log(noise))
    return evidence, a + expected, bb / determinant


def _noise(scores: Sequence[float]) -> float:
    """The variance of the measurements around their curve, by their second differences."""
    bends = [a - 2 * b + c for a, b, c in zip(scores, scores[1:], scores[2:], strict=False)]
    return statistics.fmean(bend * bend for bend in bends) / 6


def _thinned(curve: Curve) -> tuple[Sequence[float], Sequence[float]]:
    count = len(curve.moments)
    if count <= _MOST_POINTS:
        return curve.moments, curve.scores
    places = [index * (count - 1) // (_MOST_POINTS - 1) for index in range(_MOST_POINTS)]
    return [curve.moments[place] for place in places], [curve.scores[place] for place in places]


def _trend(scores: Sequence[float]) -> float:
    """By how much the last two measurements lie above the two before."""
    return (sum(scores[-2:]) - sum(scores[-4:-2])) / 2


def _standing(curve: Curve) -> float:
    return statistics.fmean(curve.scores[-_LATEST:])
