"""Integrated gradients: the gradients along a path from a baseline to the instance, times the way that was made.

Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", 2017, equation 1; the integral by the trapezoid
rule. Along a straight path that is IG; along a path of images that grow sharper it is blur IG (Xu, Venugopalan,
Sundararajan, "Attribution in Scale and Space", 2020, equation 3). Completeness: over all features, attributions add
up to the difference of the scores at the path's ends, up to the error of the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.explain.target import DifferentiableTarget

Path = Callable[[float], list[Array]]
"""From 0 (baseline) to 1 (instance) to the arrays of the explained inputs, each (n_rows, …)."""


def straight_path(baseline: Sequence[Array], example: Sequence[Array]) -> Path:
    """The direct way."""
    return lambda share: [b + share * (x - b) for b, x in zip(baseline, example, strict=True)]


def blur_path(example: Sequence[Array], max_sigma: float) -> Path:
    """From the blurred image to the sharp one."""
    return lambda share: [blur(x, max_sigma * (1 - share)) for x in example]


def integrate(
    target: DifferentiableTarget,
    arrays: Sequence[Array],
    positions: Sequence[int],
    labels: Array,
    path: Path,
    *,
    steps: int,
) -> list[Array]:
    """The attributions along a path, one float64 array per position.

    Args:
        arrays: of the instances; those that are not at `positions` stay as they are.
        labels: (n_rows,) the label of each row whose score is explained.
    """
    n_rows = len(labels)
    attributions = [np.zeros(arrays[position].shape) for position in positions]
    last_points: list[Array] = []
    last_slopes: list[Array] = []
    per_call = max(1, target.rows_at_once(arrays) // n_rows)
    for start in range(0, steps + 1, per_call):
        shares = [step / steps for step in range(start, min(start + per_call, steps + 1))]
        points = [path(share) for share in shares]
        for point, slopes in zip(points, _slopes(target, arrays, positions, labels, points), strict=True):
            if last_points:
                for index, total in enumerate(attributions):
                    total += 0.5 * (slopes[index] + last_slopes[index]) * (point[index] - last_points[index])
            last_points, last_slopes = point, slopes
    return attributions


def _slopes(
    target: DifferentiableTarget,
    arrays: Sequence[Array],
    positions: Sequence[int],
    labels: Array,
    points: Sequence[Sequence[Array]],
) -> list[list[Array]]:
    """The gradients at some points of the path, in as few calls as rows allow."""
    n_points, n_rows = len(points), len(labels)
    stacked = [np.concatenate([array] * n_points) for array in arrays]
    for index, position in enumerate(positions):
        joined = np.concatenate([point[index] for point in points])
        stacked[position] = joined.astype(arrays[position].dtype)
    all_labels = np.tile(labels, n_points)
    step = target.rows_at_once(arrays)
    found: list[list[Array]] = [[] for _ in positions]
    for start in range(0, n_points * n_rows, step):
        part = slice(start, start + step)
        slopes = target.gradients([array[part] for array in stacked], all_labels[part], positions)
        for index, slope in enumerate(slopes):
            found[index].append(np.asarray(slope, dtype=np.float64))
    joined_slopes = [np.concatenate(each) for each in found]
    return [[slope[k * n_rows : (k + 1) * n_rows] for slope in joined_slopes] for k in range(n_points)]


def blur(images: Array, sigma: float) -> Array:
    """(n_rows, height, width, …) with a Gaussian blur over height and width; edges are reflected."""
    if sigma <= 0:
        return images.astype(np.float64)
    radius = max(1, int(np.ceil(3 * sigma)))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    result = images.astype(np.float64)
    for axis in (1, 2):
        widths = [(radius, radius) if each == axis else (0, 0) for each in range(result.ndim)]
        padded = np.pad(result, widths, mode="symmetric")
        size = result.shape[axis]
        result = sum(
            weight * np.take(padded, range(offset, offset + size), axis=axis) for offset, weight in enumerate(weights)
        )
    return result
