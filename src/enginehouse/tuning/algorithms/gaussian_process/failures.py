"""Where trials fail, learnt from those that did.

Gelbart, Snoek and Adams, Bayesian Optimization with Unknown Constraints, UAI 2014, weigh the improvement by the
chance that a trial works.
"""

from __future__ import annotations

import math

from enginehouse.tuning.algorithms.gaussian_process.acquisition import Acquisition
from enginehouse.tuning.algorithms.gaussian_process.cube import Cube
from enginehouse.tuning.algorithms.gaussian_process.kernel import Hyperparameters
from enginehouse.tuning.algorithms.gaussian_process.regression import Posterior
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.numerics import special, stats

Array = np.ndarray
_MOST = 400
"""How many trials are looked at, the latest ones."""


class Failures:
    """A process through 1 at trials that worked and -1 at those that did not.

    Args:
        x, failed: (n, n_axes) float64, of either.
    """

    def __init__(self, cube: Cube, x: Array, failed: Array) -> None:
        at = np.vstack([x, failed])[-_MOST:]
        labels = np.concatenate([np.ones(len(x)), -np.ones(len(failed))])[-_MOST:]
        axes = x.shape[1]
        lengths = np.full(axes, math.log(0.3 * math.sqrt(axes)))
        hyper = Hyperparameters(lengths, 0.0, -math.inf, math.log(0.05), 0.5, 0.0)
        self._posterior = Posterior(at, labels, np.full(len(at), hyper.noise), hyper, cube.categorical)

    def weighed(self, acquisition: Acquisition) -> Acquisition:
        return _Weighed(acquisition, self._posterior)


class _Weighed:
    """An `Acquisition` with the logarithm of the chance that a trial works added."""

    def __init__(self, acquisition: Acquisition, chances: Posterior) -> None:
        self._acquisition = acquisition
        self._chances = chances

    def values(self, at: Array) -> Array:
        mean, deviation = self._chances.predict(at)
        return np.asarray(self._acquisition.values(at) + special.log_ndtr(mean / np.hypot(deviation, 0.3)))

    def slopes(self, at: Array) -> tuple[Array, Array]:
        value, slopes = self._acquisition.slopes(at)
        mean, deviation, mean_slopes, deviation_slopes = self._chances.predict_slopes(at)
        width = np.hypot(deviation, 0.3)
        z = mean[:, 0] / width
        log_chance = special.log_ndtr(z)
        ratio = np.exp(stats.norm.logpdf(z) - log_chance)
        z_slopes = (mean_slopes[:, :, 0] - (z * deviation / width)[:, None] * deviation_slopes) / width[:, None]
        return value + log_chance, slopes + ratio[:, None] * z_slopes
