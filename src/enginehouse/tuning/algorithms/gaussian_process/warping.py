"""Objective values as a Gaussian process likes them: mean 0, spread 1, no outliers."""

from __future__ import annotations

from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.numerics import special

Array = np.ndarray


def warp(scores: Array) -> Array:
    """Keep the better half as it is and draw the worse half in, by rank; then standardise.

    A model of a few dozen values has to spend itself where the good points are. A diverged trial whose loss is 1e9
    must not make all others look alike. The worse half is placed as if the scores came from a normal distribution
    whose spread is that of the better half (Song et al., The Vizier Gaussian Process Bandit Algorithm, 2024, 4.2).

    Args:
        scores: (n,) float64, finite, more is better.

    Returns:
        (n,) float64, in the same order.
    """
    scores = scores / 4.0  # so that differences don't overflow
    middle = np.median(scores)
    above = np.maximum(scores - middle, 0.0)
    good = scores >= middle
    if (top := above.max()) > 0:
        above = above / top
        above = above / np.sqrt(np.mean(above[good] ** 2))
    ranks = np.searchsorted(np.sort(scores), scores, side="right") / (len(scores) + 0.5)
    warped = np.where(good, above, special.ndtri(np.minimum(ranks, 0.5)))
    scale = np.std(warped)
    return np.asarray((warped - np.mean(warped)) / scale) if scale > 0 else np.zeros(len(scores))
