"""What is believed of the objective before any trial: how alike the values of two points are, and a mean.

The covariance is a sum of two parts. One, of all axes together, can follow any function; the other is a sum of one
term an axis, and learns what each parameter does by itself from far fewer trials, whatever the others were (Duvenaud,
Nickisch and Rasmussen, Additive Gaussian Processes, NeurIPS 2011). The data tell how much of either there is.

The mean is a dome over the middle of the cube: whoever chose a range believed that the best value lies inside of it.
Without it, few trials lead to the corners, where a model knows least (Snoek et al., Scalable Bayesian Optimization
Using Deep Neural Networks, ICML 2015, section 3.2.3). The data tell its height, and whether it is there at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from enginehouse.tuning.algorithms.numerics import numpy as np

Array = np.ndarray
_ROOT5 = math.sqrt(5.0)
MIN_NOISE = 1e-6
"""Variance, of values whose own is 1."""
_DOME_VARIANCE = 1 / 80 - 1 / 144
"""Of (u - 1/2)² for u uniform in [0, 1]."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of the kernel, the mean and the noise.

    Attributes:
        log_lengths: (n_axes,) float64, of the part of all axes together. Those of the terms of one axis are
            √n_axes times shorter, as the distance in a cube grows with its axes.
        log_signal: of the variance of that part.
        log_additive: of the variance of the sum of the others.
        log_noise: of the variance.
        mean: that the process returns to far from all data.
        dome: how much the mean is higher in the middle of the cube, in deviations of `dome`.
    """

    log_lengths: Array
    log_signal: float
    log_additive: float
    log_noise: float
    mean: float
    dome: float

    @classmethod
    def of(cls, theta: Array) -> Hyperparameters:
        """From the vector of the fit, (n_axes + 5,) float64 in the order of the attributes."""
        return cls(theta[:-5], *map(float, theta[-5:]))

    @property
    def signal(self) -> float:
        return math.exp(self.log_signal)

    @property
    def additive(self) -> float:
        return math.exp(self.log_additive)

    @property
    def variance(self) -> float:
        """Of the process at a point."""
        return self.signal + self.additive

    @property
    def noise(self) -> float:
        return math.exp(self.log_noise) + MIN_NOISE


def squared_differences(a: Array, b: Array, categorical: Array) -> Array:
    """(n_axes, n_a, n_b) float64: by axis, squared; for a category 1 where it differs.

    Args:
        a, b: (n_a, n_axes), (n_b, n_axes) float64 in the unit cube.
        categorical: (n_axes,) bool.
    """
    differences = a.T[:, :, None] - b.T[:, None, :]
    squared = differences * differences
    if categorical.any():
        squared[categorical] = differences[categorical] != 0.0
    return np.asarray(squared)


class Kernel:
    """The covariance at squared differences, and what it is made of; each of their trailing shape.

    Together a Matérn 5/2, (1 + √5 r + 5/3 r²) exp(-√5 r) of the scaled distance r, and by axis the mean of the
    rational quadratic 1 / (1 + r²/2), a mixture of smooth functions of all lengths (Rasmussen and Williams, equations
    4.17 and 4.19).

    Args:
        squared: (n_axes, ...) from `squared_differences`.
    """

    def __init__(self, squared: Array, hyper: Hyperparameters) -> None:
        self._hyper, self._shape = hyper, squared.shape
        self._weights = np.exp(-2.0 * hyper.log_lengths)
        flat = squared.reshape(len(self._weights), -1)
        self._r = _ROOT5 * np.sqrt(self._weights @ flat)
        self._decay = np.exp(-self._r)
        terms = (0.5 * len(self._weights) * self._weights)[:, None] * flat
        terms += 1.0
        self._terms = np.reciprocal(terms, out=terms)

    @cached_property
    def together(self) -> Array:
        """The correlation of all axes together."""
        r = self._r
        return np.asarray((1.0 + r + r * r / 3.0) * self._decay).reshape(self._shape[1:])

    @cached_property
    def by_axis(self) -> Array:
        """The mean of the correlations of each axis."""
        return np.asarray(self._terms.mean(axis=0)).reshape(self._shape[1:])

    @property
    def covariance(self) -> Array:
        return np.asarray(self._hyper.signal * self.together + self._hyper.additive * self.by_axis)

    def slopes(self) -> Array:
        """(n_axes, ...) float64: minus twice the derivative of the covariance by each squared difference.

        It times a difference is minus the derivative by the coordinate; it times a squared difference is that by the
        logarithm of the length.
        """
        slopes = self._terms * self._terms
        slopes *= self._hyper.additive
        slopes += self._hyper.signal * (5.0 / 3.0) * (1.0 + self._r) * self._decay
        slopes *= self._weights[:, None]
        return np.asarray(slopes).reshape(self._shape)


def dome(x: Array, categorical: Array) -> Array:
    """(n,) float64 at (n, n_axes): a paraboloid of mean 0 and variance 1 over the cube, highest in its middle.

    Categories, and parameters that a point doesn't have, add nothing.
    """
    bends = np.where(_bends(x, categorical), (x - 0.5) ** 2 - 1 / 12, 0.0)
    return np.asarray(-bends.sum(axis=1) / math.sqrt(_DOME_VARIANCE * x.shape[1]))


def dome_slopes(x: Array, categorical: Array) -> Array:
    """(n, n_axes) float64: the derivatives of `dome`."""
    bends = np.where(_bends(x, categorical), 2.0 * (x - 0.5), 0.0)
    return np.asarray(-bends / math.sqrt(_DOME_VARIANCE * x.shape[1]))


def _bends(x: Array, categorical: Array) -> Array:
    return np.asarray((x <= 1.0) & ~categorical)
