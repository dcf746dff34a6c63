"""Gaussian process regression: a Matérn 5/2 kernel with a length for each axis, fitted by its posterior mode.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginehouse.tuning.algorithms.numerics import linalg, optimize
from enginehouse.tuning.algorithms.numerics import numpy as np

Array = np.ndarray
_ROOT5 = math.sqrt(5.0)
_JITTER = 1e-8
MIN_NOISE = 1e-6
"""Variance, of values whose own is 1."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of the kernel and of the noise.

    Attributes:
        log_lengths: (n_axes,) float64.
        log_signal: of the variance.
        log_noise: of the variance.
        mean: that the process returns to far from all data.
    """

    log_lengths: Array
    log_signal: float
    log_noise: float
    mean: float

    @classmethod
    def of(cls, theta: Array) -> Hyperparameters:
        """From the vector of the fit."""
        return cls(theta[:-3], float(theta[-3]), float(theta[-2]), float(theta[-1]))

    @property
    def signal(self) -> float:
        return math.exp(self.log_signal)

    @property
    def noise(self) -> float:
        return math.exp(self.log_noise) + MIN_NOISE


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of the logarithms, and of the mean: (mean, deviation).

    The lengths grow with the square root of the dimension, so that a space of many axes isn't taken for noise before
    anything is known of it (Hvarfner, Hellsten and Nardi, Vanilla Bayesian Optimization Performs Great in High
    Dimensions, ICML 2024, equation 8).
    """

    length: tuple[float, float]
    signal: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, float] = (-9.0, 2.5)
    mean: tuple[float, float] = (0.0, 0.5)

    @classmethod
    def for_axes(cls, count: int) -> Prior:
        return cls(length=(-0.5 + 0.5 * math.log(count), 0.9))

    def vectors(self, count: int) -> tuple[Array, Array]:
        """Mean and deviation in the order of the fit: lengths, signal, noise, mean; (count + 3,) each."""
        rows = [self.length] * count + [self.signal, self.noise, self.mean]
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


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


def matern52(squared: Array, log_lengths: Array) -> tuple[Array, Array]:
    """Correlation, and minus twice its derivative by the scaled squared distance r²; each of the trailing shape.

    k(r) = (1 + √5 r + 5/3 r²) exp(-√5 r), -2 dk/d(r²) = 5/3 (1 + √5 r) exp(-√5 r).

    Args:
        squared: (n_axes, ...) from `squared_differences`.
    """
    weights = np.exp(-2.0 * log_lengths)
    r2 = (weights @ squared.reshape(len(weights), -1)).reshape(squared.shape[1:])
    r = _ROOT5 * np.sqrt(r2)
    decay = np.exp(-r)
    slope = (5.0 / 3.0) * (1.0 + r) * decay
    return (1.0 + r) * decay + r2 * (5.0 / 3.0) * decay, slope


class Evidence:
    """The posterior of the hyperparameters, as a function of θ = (log lengths, log signal, log noise, mean).

    Args:
        squared: (n_axes, n, n), see `squared_differences`.
        y: (n,) float64, standardised.
    """

    def __init__(self, squared: Array, y: Array, prior: Prior) -> None:
        self._squared, self._y = squared, y
        self._axes = squared.shape[0]
        self._flat = squared.reshape(self._axes, -1)
        self.centre, self.deviation = prior.vectors(self._axes)

    def fit(self, *, max_steps: int = 40) -> Array:
        """θ at the mode, by L-BFGS from the mode of the prior: (n_axes + 3,) float64."""
        bounds = [(c - 5 * d, c + 5 * d) for c, d in zip(self.centre, self.deviation, strict=True)]
        options = {"maxiter": max_steps, "maxls": 10}
        found = optimize.minimize(
            self._loss, self.centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return np.asarray(found.x)

    def draw(self, start: Array, count: int, steps: int, rng: np.random.Generator) -> list[Array]:
        """θ at `count` places of a Markov chain from `start`, `steps` apart.

        Elliptical slice sampling: the prior is normal, so there is nothing to adjust (Murray, Adams and MacKay,
        AISTATS 2010, figure 2).
        """
        theta = (start - self.centre) / self.deviation
        now = self._log_likelihood(theta)
        kept = []
        for step in range(count * steps):
            other = rng.normal(size=len(theta))
            threshold = now + math.log(1.0 - rng.random())
            angle = rng.uniform(0.0, 2.0 * math.pi)
            low, high = angle - 2.0 * math.pi, angle
            for _ in range(30):
                proposal = theta * math.cos(angle) + other * math.sin(angle)
                proposed = self._log_likelihood(proposal)
                if proposed > threshold:
                    theta, now = proposal, proposed
                    break
                low, high = (angle, high) if angle < 0 else (low, angle)
                angle = rng.uniform(low, high)
            if step % steps == steps - 1:
                kept.append(self.centre + self.deviation * theta)
        return kept

    def _log_likelihood(self, z: Array) -> float:
        """Of the values alone, at θ in deviations from the centre of the prior."""
        theta = self.centre + self.deviation * z
        factor, _, _, bad = self._factored(theta)
        if bad:
            return -math.inf
        half = linalg.lapack.dtrtrs(factor, self._y - theta[-1], lower=1)[0]
        return float(-0.5 * half @ half - np.log(factor.diagonal()).sum())

    def _factored(self, theta: Array) -> tuple[Array, Array, Array, int]:
        """Cholesky factor of the covariance; correlation and slope (see `matern52`); not 0 if it failed."""
        correlation, slope = matern52(self._squared, theta[: self._axes])
        covariance = math.exp(theta[-3]) * correlation
        covariance.flat[:: len(covariance) + 1] += math.exp(theta[-2]) + MIN_NOISE + _JITTER
        factor, bad = linalg.lapack.dpotrf(covariance, lower=1, clean=0)
        return factor, correlation, slope, bad

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """Minus the logarithm of the posterior, and its derivative (Rasmussen and Williams, equation 5.9)."""
        count, (log_signal, log_noise, mean) = self._axes, theta[-3:]
        z = (theta - self.centre) / self.deviation
        factor, correlation, slope, bad = self._factored(theta)
        if bad:
            return 1e10 + float(z @ z), z / self.deviation
        residual = self._y - mean
        alpha = linalg.lapack.dpotrs(factor, residual, lower=1)[0]
        value = 0.5 * residual @ alpha + np.log(factor.diagonal()).sum() + 0.5 * z @ z
        inverse = linalg.lapack.dpotri(factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        # d value / d covariance = -outer / 2
        outer = np.outer(alpha, alpha) - inverse
        gradient = z / self.deviation
        weights = 0.5 * math.exp(log_signal) * np.exp(-2.0 * theta[:count])
        gradient[:count] -= weights * (self._flat @ (outer * slope).ravel())
        gradient[count] -= 0.5 * math.exp(log_signal) * np.vdot(outer, correlation)
        gradient[count + 1] -= 0.5 * math.exp(log_noise) * np.trace(outer)
        gradient[count + 2] -= alpha.sum()
        return float(value), gradient


class Posterior:
    """The process given data. Immutable.

    Args:
        x: (n, n_axes) float64 in the unit cube.
        y: (n,) or (n, n_draws) float64: with several columns there are as many means and one variance.
        noise: (n,) float64, the variance of each value.
    """

    def __init__(self, x: Array, y: Array, noise: Array, hyper: Hyperparameters, categorical: Array) -> None:
        self.x, self.y, self.noise = x, y, noise
        self.hyper, self.categorical = hyper, categorical
        covariance = hyper.signal * matern52(squared_differences(x, x, categorical), hyper.log_lengths)[0]
        covariance.flat[:: len(x) + 1] += noise + _JITTER
        self._factor = linalg.cholesky(covariance, lower=True, check_finite=False)
        self.alpha = linalg.cho_solve((self._factor, True), y - hyper.mean, check_finite=False)

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Mean, (m,) or (m, n_draws), and deviation, (m,), of the process without noise at (m, n_axes)."""
        across = self._covariance(at, self.x)
        half = linalg.solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        variance = self.hyper.signal - np.einsum("ij,ij->j", half, half)
        return self.hyper.mean + across @ self.alpha, np.sqrt(np.maximum(variance, 1e-12))

    def predict_slopes(self, at: Array) -> tuple[Array, Array, Array, Array]:
        """Mean, deviation and their derivatives by the coordinates; those by a category are 0.

        Returns:
            (m, n_draws), (m,), (m, n_axes, n_draws), (m, n_axes); n_draws is 1 for one column.
        """
        squared = squared_differences(at, self.x, self.categorical)
        correlation, slope = matern52(squared, self.hyper.log_lengths)
        across = self.hyper.signal * correlation
        weights = np.where(self.categorical, 0.0, np.exp(-2.0 * self.hyper.log_lengths))
        # (m, n_axes, n)
        slopes = (-self.hyper.signal * slope)[:, None, :] * (at[:, :, None] - self.x.T[None]) * weights[None, :, None]
        alpha = self.alpha.reshape(len(self.x), -1)
        solved = linalg.cho_solve((self._factor, True), across.T, check_finite=False)
        variance = np.maximum(self.hyper.signal - np.einsum("ij,ji->i", across, solved), 1e-12)
        deviation = np.sqrt(variance)
        deviation_slopes = -np.einsum("idj,ji->id", slopes, solved) / deviation[:, None]
        return self.hyper.mean + across @ alpha, deviation, slopes @ alpha, deviation_slopes

    def joint(self, at: Array) -> tuple[Array, Array]:
        """Mean (m,) and covariance (m, m) of the process at (m, n_axes); for one column."""
        across = self._covariance(at, self.x)
        half = linalg.solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return self.hyper.mean + across @ self.alpha, self._covariance(at, at) - half.T @ half

    def _covariance(self, a: Array, b: Array) -> Array:
        squared = squared_differences(a, b, self.categorical)
        return self.hyper.signal * matern52(squared, self.hyper.log_lengths)[0]
