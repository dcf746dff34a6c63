"""Gaussian process regression, its hyperparameters fitted by their posterior mode or drawn from their posterior.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapters 2, 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginehouse.tuning.algorithms.gaussian_process.kernel import (
    Hyperparameters,
    Kernel,
    dome,
    dome_slopes,
    squared_differences,
)
from enginehouse.tuning.algorithms.numerics import linalg, optimize
from enginehouse.tuning.algorithms.numerics import numpy as np

Array = np.ndarray
_JITTER = 1e-8


@dataclass(frozen=True)
class Prior:
    """Independent normal distributions of the logarithms, and of what the mean is made of: (mean, deviation).

    The lengths grow with the square root of the dimension, so that a space of many axes isn't taken for noise before
    anything is known of it (Hvarfner, Hellsten and Nardi, Vanilla Bayesian Optimization Performs Great in High
    Dimensions, ICML 2024, equation 8).
    """

    length: tuple[float, float]
    signal: tuple[float, float] = (0.0, 1.0)
    additive: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, float] = (-9.0, 2.5)
    mean: tuple[float, float] = (0.0, 0.5)
    dome: tuple[float, float] = (0.15, 0.15)

    @classmethod
    def for_axes(cls, count: int) -> Prior:
        return cls(length=(-0.5 + 0.5 * math.log(count), 0.9))

    def vectors(self, count: int) -> tuple[Array, Array]:
        """Mean and deviation in the order of `Hyperparameters`: (count + 5,) each."""
        rows = [self.length] * count + [self.signal, self.additive, self.noise, self.mean, self.dome]
        return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


class Evidence:
    """The posterior of the hyperparameters, as a function of the vector θ (see `Hyperparameters`).

    Args:
        x: (n, n_axes) float64 in the unit cube.
        y: (n,) float64, standardised.
        categorical: (n_axes,) bool.
    """

    def __init__(self, x: Array, y: Array, categorical: Array, prior: Prior) -> None:
        self._y, self._dome = y, dome(x, categorical)
        # Each pair once: the lower triangle, row by row.
        self._pairs = np.tril_indices(len(y), -1)
        self._squared = squared_differences(x, x, categorical)[:, self._pairs[0], self._pairs[1]]
        self.centre, self.deviation = prior.vectors(x.shape[1])

    def fit(self, *, max_steps: int = 40) -> Array:
        """θ at the mode, by L-BFGS from the mode of the prior: (n_axes + 5,) float64."""
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
        hyper = Hyperparameters.of(self.centre + self.deviation * z)
        factor, bad = self._factored(hyper, Kernel(self._squared, hyper).covariance)
        if bad:
            return -math.inf
        half = linalg.lapack.dtrtrs(factor, self._residual(hyper), lower=1)[0]
        return float(-0.5 * half @ half - np.log(factor.diagonal()).sum())

    def _residual(self, hyper: Hyperparameters) -> Array:
        return np.asarray(self._y - hyper.mean - hyper.dome * self._dome)

    def _factored(self, hyper: Hyperparameters, pairs: Array) -> tuple[Array, int]:
        """Cholesky factor of the covariance, given that of the pairs; not 0 if it failed."""
        count = len(self._y)
        whole = np.zeros((count, count), order="F")
        whole[self._pairs] = pairs
        whole.T.flat[:: count + 1] = hyper.variance + hyper.noise + _JITTER
        factor, bad = linalg.lapack.dpotrf(whole, lower=1, clean=0, overwrite_a=1)
        return factor, bad

    def _loss(self, theta: Array) -> tuple[float, Array]:
        """Minus the logarithm of the posterior, and its derivative (Rasmussen and Williams, equation 5.9)."""
        hyper, axes = Hyperparameters.of(theta), len(theta) - 5
        z = (theta - self.centre) / self.deviation
        kernel = Kernel(self._squared, hyper)
        factor, bad = self._factored(hyper, kernel.covariance)
        if bad:
            return 1e10 + float(z @ z), z / self.deviation
        residual = self._residual(hyper)
        alpha = linalg.lapack.dpotrs(factor, residual, lower=1)[0]
        value = 0.5 * residual @ alpha + np.log(factor.diagonal()).sum() + 0.5 * z @ z
        inverse = linalg.lapack.dpotri(factor, lower=1)[0]
        # d value / d covariance = -outer / 2, and each pair is there twice.
        rows, columns = self._pairs
        outer = alpha[rows] * alpha[columns] - inverse[self._pairs]
        trace = float(alpha @ alpha - inverse.trace())
        gradient = z / self.deviation
        weighted = kernel.slopes()
        weighted *= self._squared
        gradient[:axes] -= weighted @ outer
        gradient[axes] -= hyper.signal * (outer @ kernel.together + 0.5 * trace)
        gradient[axes + 1] -= hyper.additive * (outer @ kernel.by_axis + 0.5 * trace)
        gradient[axes + 2] -= 0.5 * math.exp(hyper.log_noise) * trace
        gradient[axes + 3] -= alpha.sum()
        gradient[axes + 4] -= alpha @ self._dome
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
        whole = self._covariance(x, x)
        whole.flat[:: len(x) + 1] += noise + _JITTER
        self._factor = linalg.cholesky(whole, lower=True, check_finite=False)
        residual = (y.T - self._mean(x)).T
        self.alpha = linalg.cho_solve((self._factor, True), residual, check_finite=False)

    def predict(self, at: Array) -> tuple[Array, Array]:
        """Mean, (m,) or (m, n_draws), and deviation, (m,), of the process without noise at (m, n_axes)."""
        across = self._covariance(at, self.x)
        half = linalg.solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        variance = self.hyper.variance - np.einsum("ij,ij->j", half, half)
        mean = (self._mean(at) + (across @ self.alpha).T).T
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def predict_slopes(self, at: Array) -> tuple[Array, Array, Array, Array]:
        """Mean, deviation and their derivatives by the coordinates; those by a category are 0.

        Returns:
            (m, n_draws), (m,), (m, n_axes, n_draws), (m, n_axes); n_draws is 1 for one column.
        """
        squared = squared_differences(at, self.x, self.categorical)
        kernel = Kernel(squared, self.hyper)
        across, by_difference = kernel.covariance, kernel.slopes()
        by_difference[self.categorical] = 0.0
        # (m, n_axes, n)
        by_coordinate = -(at.T[:, :, None] - self.x.T[:, None, :]) * by_difference
        by_coordinate = by_coordinate.transpose(1, 0, 2)
        alpha = self.alpha.reshape(len(self.x), -1)
        solved = linalg.cho_solve((self._factor, True), across.T, check_finite=False)
        variance = np.maximum(self.hyper.variance - np.einsum("ij,ji->i", across, solved), 1e-12)
        deviation = np.sqrt(variance)
        deviation_slopes = -np.einsum("idj,ji->id", by_coordinate, solved) / deviation[:, None]
        mean = self._mean(at)[:, None] + across @ alpha
        mean_slopes = by_coordinate @ alpha + self.hyper.dome * dome_slopes(at, self.categorical)[:, :, None]
        return mean, deviation, mean_slopes, deviation_slopes

    def joint(self, at: Array) -> tuple[Array, Array]:
        """Mean (m,) and covariance (m, m) of the process at (m, n_axes); for one column."""
        across = self._covariance(at, self.x)
        half = linalg.solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return self._mean(at) + across @ self.alpha, self._covariance(at, at) - half.T @ half

    def _mean(self, at: Array) -> Array:
        """(m,) float64: of the process before any data."""
        return self.hyper.mean + self.hyper.dome * dome(at, self.categorical)

    def _covariance(self, a: Array, b: Array) -> Array:
        return Kernel(squared_differences(a, b, self.categorical), self.hyper).covariance
