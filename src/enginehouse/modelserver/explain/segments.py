"""Segments of an image: Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", 2004.

Regions grow along the edges between neighbouring pixels, the likest first, and are joined when the edge between them
is no greater than what is inside of each, plus scale / size. Scikit-image's namesake does the same.
"""

from __future__ import annotations

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.explain.gradients import blur

_SMOOTH_SIGMA = 0.8  # the paper's


def felzenszwalb(image: Array, *, scale: float, min_size: int = 20) -> Array:
    """The segment of each pixel.

    Args:
        image: (height, width, channels) in 0 … 1.
        scale: greater for larger segments (k of the paper, for channels of 0 … 255).
        min_size: smaller segments are joined with a neighbour.

    Returns:
        (height, width) int64 from 0 on.
    """
    height, width, _ = image.shape
    smooth = blur(image[None], _SMOOTH_SIGMA)[0]
    numbers = np.arange(height * width).reshape(height, width)
    pairs, costs = [], []
    # Right, down, and the two diagonals: each pair of neighbours once.
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))),
        ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))),
    ):
        pairs.append(np.stack([numbers[here].ravel(), numbers[there].ravel()], axis=1))
        costs.append(np.sqrt(((smooth[here] - smooth[there]) ** 2).sum(axis=-1)).ravel())
    cost = np.concatenate(costs)
    order = np.argsort(cost, kind="stable")
    edges = np.concatenate(pairs)[order].tolist()
    roots = _join(edges, cost[order].tolist(), height * width, scale / 255, min_size)
    return np.unique(roots, return_inverse=True)[1].reshape(height, width)


def _join(edges: list[list[int]], costs: list[float], n_pixels: int, scale: float, min_size: int) -> Array:
    """The root pixel of each pixel's segment."""
    parent = list(range(n_pixels))
    size = [1] * n_pixels
    inside = [0.0] * n_pixels

    def find(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    def unite(one: int, other: int) -> int:
        if size[one] < size[other]:
            one, other = other, one
        parent[other] = one
        size[one] += size[other]
        return one

    for (left, right), cost in zip(edges, costs, strict=True):
        one, other = find(left), find(right)
        if one != other and cost <= min(inside[one] + scale / size[one], inside[other] + scale / size[other]):
            inside[unite(one, other)] = cost
    for left, right in edges:
        one, other = find(left), find(right)
        if one != other and min(size[one], size[other]) < min_size:
            unite(one, other)
    return np.array([find(pixel) for pixel in range(n_pixels)])


def dilate(mask: Array, radius: int) -> Array:
    """A mask grown by a disk of this radius."""
    padded = np.pad(mask, radius)
    height, width = mask.shape
    grown = np.zeros_like(mask)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy <= radius * radius:
                grown |= padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return grown
