"""Gaussian process bandit: a model of the objective, and the point that promises most by it.

The way of a suggestion: all trials → coordinates and warped scores → hyperparameters at the mode of their posterior →
the model, with draws for the trials that go on → the point with the highest expected improvement. The first few
trials of a study come from a scrambled Sobol sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.tuning.algorithms.base import Problem, Tried, key_of
from enginehouse.tuning.algorithms.gaussian_process.acquisition import Acquisition, ExpectedImprovement, Mean
from enginehouse.tuning.algorithms.gaussian_process.cube import Cube
from enginehouse.tuning.algorithms.gaussian_process.failures import Failures
from enginehouse.tuning.algorithms.gaussian_process.kernel import Hyperparameters
from enginehouse.tuning.algorithms.gaussian_process.maximise import maximise
from enginehouse.tuning.algorithms.gaussian_process.regression import Evidence, Posterior, Prior
from enginehouse.tuning.algorithms.gaussian_process.warping import warp
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.quasi_random import QuasiRandomSearch
from enginehouse.tuning.space import Point

Array = np.ndarray
DRAWS = 8
"""Values that each pending trial is given."""
AVERAGED = 5
"""How many draws of the hyperparameters the improvement is averaged over, beside their mode,"""
MAX_AVERAGED = 40
"""while there are at most so many trials: then the data don't tell much of them. It costs a few fits."""
STEPS = 6
"""Of the Markov chain between draws."""
MAX_FITTED = 200
"""How many trials the hyperparameters are fitted to."""
MAX_MODELLED = 400
"""How many trials the model holds; a model costs the third power of it."""


@dataclass(frozen=True)
class Data:
    """x: (n, n_axes) float64 in the unit cube; y: (n,) float64, warped."""

    x: Array
    y: Array


class GaussianProcessBandit:
    """A `Designer` (see base.py for the contract)."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._cube = Cube(problem.space)
        self._trials: Sequence[Tried] = ()

    def update(self, trials: Sequence[Tried]) -> None:
        self._trials = trials

    def suggest(self, first: int, count: int) -> list[Point]:
        space, axes = self._problem.space, len(self._problem.space.axes)
        initial = initial_count(axes)
        x = np.array([space.to_unit(trial.point) for trial in self._trials]).reshape(-1, axes)
        scored = np.array([trial.scores is not None for trial in self._trials], dtype=bool)
        pending = x[[trial.pending for trial in self._trials]]
        failed = x[[trial.failed for trial in self._trials]]
        left = space.size() - len({key_of(trial.point) for trial in self._trials})
        points: list[Point] = []
        model: _Model | None = None
        tried = x
        for number in range(first, first + min(count, int(min(left, count)))):
            rng = np.random.default_rng([self._problem.seed, number])
            if number <= initial or scored.sum() < 2:
                (point,) = QuasiRandomSearch(self._problem).suggest(number, 1)
                unit = np.array(space.to_unit(point))
                if (np.abs(tried - unit).max(axis=1, initial=0.0) < 1e-9).any() and len(tried):
                    unit = self._fresh(tried, rng)
            else:
                if model is None:
                    model = _Model(self._cube, x[scored], self._scores(rng), failed, rng)
                acquisition = model.acquisition(pending, rng)
                unit = maximise(acquisition, self._cube, model.centres(), tried, rng)
            point = space.from_unit([float(u) for u in unit])
            unit = np.array(space.to_unit(point))
            points.append(point)
            pending, tried = np.vstack([pending, unit]), np.vstack([tried, unit])
        return points

    def _scores(self, rng: np.random.Generator) -> Array:
        """(n,) float64: of several metrics, one of their trade-offs, another for each suggestion.

        Knowles, ParEGO, IEEE Transactions on Evolutionary Computation 10 (2006), equation 2.
        """
        scores = np.array([trial.scores for trial in self._trials if trial.scores is not None])
        warped = np.column_stack([warp(column) for column in scores.T])
        if warped.shape[1] == 1:
            return warped[:, 0]
        weights = rng.dirichlet(np.ones(warped.shape[1]))
        short = (warped - warped.max(axis=0)) * weights
        return warp(short.min(axis=1) + 0.05 * short.sum(axis=1))

    def _fresh(self, tried: Array, rng: np.random.Generator) -> Array:
        """A random point that was not tried, if chance finds one."""
        candidates = self._cube.at_shares(rng.random((256, len(self._cube.levels))))
        new = (np.abs(candidates[:, None] - tried[None]).max(axis=2) > 1e-9).all(axis=1)
        return np.asarray(candidates[int(np.argmax(new))])


def initial_count(axes: int) -> int:
    """How many trials come before the model: few, since it learns from the first one on."""
    return 2 + math.ceil(math.sqrt(axes))


class _Model:
    """What is believed of the objective, and of where trials fail."""

    def __init__(self, cube: Cube, x: Array, y: Array, failed: Array, rng: np.random.Generator) -> None:
        self._cube = cube
        kept = _subset(x, y, MAX_MODELLED)
        x, y = x[kept], y[kept]
        fitted = _subset(x, y, MAX_FITTED)
        evidence = Evidence(x[fitted], y[fitted], cube.categorical, Prior.for_axes(x.shape[1]))
        mode = evidence.fit()
        thetas = [mode]
        if len(y) <= MAX_AVERAGED:
            thetas += evidence.draw(mode, AVERAGED, STEPS, rng)
        self._posteriors = [self._posterior(x, y, Hyperparameters.of(theta)) for theta in thetas]
        self._means = [posterior.predict(x)[0] for posterior in self._posteriors]
        self._failures = Failures(cube, x, failed) if len(failed) else None

    def centres(self) -> Array:
        """The best trials by the model, best first: (k, n_axes) float64."""
        return self._posteriors[0].x[np.argsort(-np.mean(self._means, axis=0), kind="stable")[:5]]

    def acquisition(self, pending: Array, rng: np.random.Generator) -> Acquisition:
        """Args: pending: (p, n_axes) float64, trials whose scores are not known yet."""
        normal = _normal(DRAWS if len(self._posteriors) == 1 else 2, len(pending), rng)
        improvement = Mean(
            [
                self._improvement(posterior, float(means.max()), pending, normal)
                for posterior, means in zip(self._posteriors, self._means, strict=True)
            ]
        )
        return self._failures.weighed(improvement) if self._failures else improvement

    def _posterior(self, x: Array, y: Array, hyper: Hyperparameters) -> Posterior:
        return Posterior(x, y, np.full(len(x), hyper.noise), hyper, self._cube.categorical)

    def _improvement(self, posterior: Posterior, best: float, pending: Array, normal: Array) -> Acquisition:
        """Args: normal: (n_draws, p) float64, from the standard normal distribution."""
        if not len(pending):
            return ExpectedImprovement(posterior, np.array([best]))
        mean, covariance = posterior.joint(pending)
        covariance.flat[:: len(pending) + 1] += 1e-6
        draws = mean[:, None] + np.linalg.cholesky(covariance) @ normal.T
        y = np.vstack([np.repeat(posterior.y[:, None], len(normal), axis=1), draws])
        noise = np.concatenate([posterior.noise, np.full(len(pending), 1e-6)])
        x = np.vstack([posterior.x, pending])
        extended = Posterior(x, y, noise, posterior.hyper, self._cube.categorical)
        return ExpectedImprovement(extended, np.maximum(best, draws.max(axis=0)))


def _subset(x: Array, y: Array, limit: int) -> Array:
    """Places of the trials that tell most, rising: the best, the latest, and those around the very best."""
    n = len(y)
    if n <= limit:
        return np.arange(n)
    best = np.argsort(-y, kind="stable")
    distance = np.abs(x - x[best[0]]).sum(axis=1)
    ranked = [best, np.arange(n)[::-1], np.argsort(distance, kind="stable")]
    kept: dict[int, None] = {}
    for places in zip(*ranked, strict=True):
        kept.update(dict.fromkeys(map(int, places)))
        if len(kept) >= limit:
            break
    return np.array(sorted(list(kept)[:limit]))


def _normal(draws: int, count: int, rng: np.random.Generator) -> Array:
    """(draws, count) float64 from the standard normal distribution, more evenly than chance and balanced around 0."""
    half = rng.normal(size=((draws + 1) // 2, count))
    return np.concatenate([half, -half])[:draws]
