"""How much a point promises: the logarithm of the expected improvement.

The logarithm keeps a slope where the improvement itself underflows, so that a search finds the way (Ament et al.,
Unexpected Improvements to Expected Improvement for Bayesian Optimization, NeurIPS 2023). Trials that go on are given
values drawn from the model, and the improvement is averaged over the draws (Snoek, Larochelle and Adams, Practical
Bayesian Optimization of Machine Learning Algorithms, NeurIPS 2012, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from enginehouse.tuning.algorithms.gaussian_process.regression import Posterior
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.numerics import special

Array = np.ndarray
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_ROOT_HALF_PI = math.sqrt(0.5 * math.pi)


class Acquisition(Protocol):
    """What a search maximises."""

    def values(self, at: Array) -> Array:
        """(m,) float64 at (m, n_axes)."""
        ...

    def slopes(self, at: Array) -> tuple[Array, Array]:
        """(m,) and (m, n_axes) float64: the values and their derivatives, 0 by a category."""
        ...


class ExpectedImprovement:
    """An `Acquisition`: log of the mean over the model's columns of E[max(f - best, 0)].

    Args:
        best: (n_draws,) float64, the best value in each column.
    """

    def __init__(self, posterior: Posterior, best: Array) -> None:
        self._posterior = posterior
        self._best = best

    def values(self, at: Array) -> Array:
        mean, deviation = self._posterior.predict(at)
        deviation = deviation[:, None]
        log_h, _ = log_improvement((mean.reshape(len(at), -1) - self._best) / deviation)
        return np.asarray(special.logsumexp(log_h + np.log(deviation), axis=1) - math.log(len(self._best)))

    def slopes(self, at: Array) -> tuple[Array, Array]:
        mean, deviation, mean_slopes, deviation_slopes = self._posterior.predict_slopes(at)
        z = (mean - self._best) / deviation[:, None]
        log_h, log_h_slope = log_improvement(z)
        value = special.logsumexp(log_h, axis=1)
        weights = np.exp(log_h - value[:, None])
        value += np.log(deviation) - math.log(len(self._best))
        # d log h = (h'/h) dz, dz = (dmean - z ddeviation) / deviation
        share = weights * log_h_slope / deviation[:, None]
        by_deviation = 1.0 / deviation - np.einsum("is,is->i", share, z)
        slopes = np.einsum("ids,is->id", mean_slopes, share) + deviation_slopes * by_deviation[:, None]
        return value, slopes


class Mean:
    """An `Acquisition`: the mean of several, as that over hyperparameters that the data can't tell apart.

    Snoek, Larochelle and Adams (2012), section 3.1.
    """

    def __init__(self, acquisitions: Sequence[Acquisition]) -> None:
        self._acquisitions = acquisitions

    def values(self, at: Array) -> Array:
        values = np.array([acquisition.values(at) for acquisition in self._acquisitions])
        return np.asarray(special.logsumexp(values, axis=0) - math.log(len(values)))

    def slopes(self, at: Array) -> tuple[Array, Array]:
        pairs = [acquisition.slopes(at) for acquisition in self._acquisitions]
        values, slopes = np.array([value for value, _ in pairs]), np.array([slope for _, slope in pairs])
        mean = special.logsumexp(values, axis=0)
        weights = np.exp(values - mean)
        return mean - math.log(len(values)), np.einsum("ki,kid->id", weights, slopes)


def log_improvement(z: Array) -> tuple[Array, Array]:
    """log h(z) and its derivative, for h(z) = φ(z) + z Φ(z), without underflow (Ament et al., equation 9)."""
    log_density = -0.5 * z * z - _LOG_ROOT_2PI
    # Φ/φ, by the scaled complementary error function below 0.
    ratio = _ROOT_HALF_PI * special.erfcx(np.minimum(-z, 1e4) / math.sqrt(2.0))
    ratio = np.where(z < 20.0, ratio, 1.0)
    inner = 1.0 + z * ratio
    far = z < -1e3
    # 1 + z Φ/φ loses its digits far below 0, where it is z**-2.
    safe = np.where(far, 1.0 / np.maximum(z * z, 1.0), np.maximum(inner, 1e-12))
    near_top = z > 5.0
    top = np.maximum(z, 1.0)
    log_h = np.where(near_top, np.log(top), log_density + np.log(safe))
    slope = np.where(near_top, 1.0 / top, np.where(far, -z, ratio / safe))
    return log_h, slope
