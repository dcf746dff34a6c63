"""The search for the point that promises most: spread candidates, then local steps from the best of them."""

from __future__ import annotations

from enginehouse.tuning.algorithms.gaussian_process.acquisition import Acquisition
from enginehouse.tuning.algorithms.gaussian_process.cube import Cube
from enginehouse.tuning.algorithms.numerics import numpy as np
from enginehouse.tuning.algorithms.numerics import optimize
from enginehouse.tuning.space import INACTIVE

Array = np.ndarray
SPREAD = 512
"""How many candidates lie all over the space."""
NEAR = 256
"""How many lie around the best trials."""
STARTS = 4
_DEVIATIONS = (0.3, 0.1, 0.03, 0.01)


def maximise(acquisition: Acquisition, cube: Cube, centres: Array, tried: Array, rng: np.random.Generator) -> Array:
    """The best point found, (n_axes,) float64, among those that were not tried as far as there are any.

    Args:
        centres: (k, n_axes) of the best trials.
        tried: (n, n_axes) of all trials.
    """
    candidates = np.concatenate([_spread(cube, rng), _near(cube, centres, rng)])
    values = acquisition.values(candidates)
    order = np.argsort(-values, kind="stable")
    starts = _apart(candidates[order], STARTS)
    if cube.smooth.any():
        starts = _climb(acquisition, cube, starts)
    if not cube.smooth.all():
        starts = _step(acquisition, cube, starts)
        if cube.smooth.any():
            best = starts[int(np.argmax(acquisition.values(starts)))]
            starts = np.vstack([starts, _climb(acquisition, cube, best[None])])
    last = np.concatenate([starts, candidates[order[:64]]])
    values = acquisition.values(last)
    values[_is_among(last, tried)] = -np.inf
    if not np.isfinite(values).any():
        fresh = candidates[~_is_among(candidates, tried)]
        return np.asarray(fresh[0] if len(fresh) else last[0])
    return np.asarray(last[int(np.argmax(values))])


def _spread(cube: Cube, rng: np.random.Generator) -> Array:
    return cube.at_shares(rng.random((SPREAD, len(cube.levels))))


def _near(cube: Cube, centres: Array, rng: np.random.Generator) -> Array:
    """Around each centre some axes are moved, by steps of several sizes."""
    count, axes = NEAR, centres.shape[1]
    start = centres[np.arange(count) % len(centres)]
    deviation = np.array(_DEVIATIONS)[(np.arange(count) // len(centres)) % len(_DEVIATIONS)]
    moved = rng.random((count, axes)) < max(0.3, min(1.0, 2.0 / axes))
    moved[np.arange(count), rng.integers(axes, size=count)] = True
    steps = rng.normal(size=(count, axes)) * deviation[:, None]
    anew = cube.by_share(rng.random((count, axes)))
    at = np.where(moved, np.where(cube.categorical, anew, _mirrored(start + steps)), start)
    # A child that the centre did not have begins anywhere.
    return cube.snap(np.where(start == INACTIVE, anew, at))


def _mirrored(at: Array) -> Array:
    at = np.abs(at)
    return np.clip(np.where(at > 1.0, 2.0 - at, at), 0.0, 1.0)


def _apart(ordered: Array, count: int) -> Array:
    """The first ones of `ordered` that don't lie close to one before."""
    kept = [ordered[0]]
    for row in ordered[1:200]:
        if len(kept) == count:
            break
        if min(float(np.abs(row - other).max()) for other in kept) > 0.05:
            kept.append(row)
    return np.array(kept)


def _climb(acquisition: Acquisition, cube: Cube, starts: Array) -> Array:
    """Up the slope along the smooth axes, all starts in one run: their sum has its top where each has its own."""
    free = cube.active(starts) & cube.smooth
    if not free.any():
        return starts

    def loss(flat: Array) -> tuple[float, Array]:
        at = starts.copy()
        at[free] = flat
        values, slopes = acquisition.slopes(at)
        return -float(values.sum()), -slopes[free]

    options = {"maxiter": 20, "maxls": 8}
    found = optimize.minimize(
        loss, starts[free], jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * int(free.sum()), options=options
    )
    ends = starts.copy()
    ends[free] = found.x
    # The sum may have grown at the cost of one of them.
    better = acquisition.values(ends) >= acquisition.values(starts)
    return np.where(better[:, None], ends, starts)


def _step(acquisition: Acquisition, cube: Cube, starts: Array) -> Array:
    """From value to value along the other axes."""
    ends = starts.copy()
    for index in range(len(ends)):
        best = float(acquisition.values(ends[index : index + 1])[0])
        for _ in range(4):
            around = cube.neighbours(ends[index], reach=2)
            if not len(around):
                break
            values = acquisition.values(around)
            top = int(np.argmax(values))
            if values[top] <= best:
                break
            ends[index], best = around[top], float(values[top])
    return ends


def _is_among(rows: Array, others: Array) -> Array:
    """(m,) bool: which rows are, but for rounding, one of (n, n_axes)."""
    if not len(others):
        return np.zeros(len(rows), dtype=bool)
    return np.asarray((np.abs(rows[:, None, :] - others[None]).max(axis=2) < 1e-9).any(axis=1))
