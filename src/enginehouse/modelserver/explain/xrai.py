"""XRAI: the regions of an image that matter, rather than its pixels.

Kapishnikov, Bolukbasi, Viégas, Terry, "XRAI: Better Attributions Through Regions", 2019, algorithm 1. The pixels'
integrated gradients against a black and a white image are averaged; the image is segmented at several scales into
overlapping regions; the region with the greatest gain per pixel that is not covered yet is taken, again and again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.explain.segments import dilate, felzenszwalb

SCALES = (50, 100, 150, 250, 500, 1200)
_DILATION_PIXELS = 5
_MIN_PIXEL_GAIN = 1
"""A region that adds no more new pixels than this is dropped."""


def segment_masks(image: Array) -> list[Array]:
    """Boolean masks (height, width) of overlapping regions, at all scales.

    Args:
        image: (height, width, channels) in 0 … 1.
    """
    masks = []
    for scale in SCALES:
        segments = felzenszwalb(image, scale=scale)
        masks += [dilate(segments == number, _DILATION_PIXELS) for number in range(segments.max() + 1)]
    return masks


def regions(attributions: Array, masks: Sequence[Array]) -> Array:
    """(height, width): for each pixel the gain per pixel of the region that covered it first.

    Args:
        attributions: (height, width) of the pixels.
        masks: of the regions; what they leave uncovered gets its own mean, last.
    """
    flat = attributions.ravel()
    left = np.stack([mask.ravel() for mask in masks]) if masks else np.zeros((0, flat.size), dtype=bool)
    result = np.full(flat.shape, -np.inf)
    covered = np.zeros(flat.shape, dtype=bool)
    sums, sizes = left @ flat, left.sum(axis=1).astype(np.float64)
    open_ = sizes > _MIN_PIXEL_GAIN
    while open_.any():
        gains = np.where(open_, sums / np.maximum(sizes, 1), -np.inf)
        best = int(np.argmax(gains))
        new = left[best].copy()
        result[new] = gains[best]
        covered |= new
        indices = np.flatnonzero(new)
        sums -= left[:, indices] @ flat[indices]
        sizes -= left[:, indices].sum(axis=1)
        left[:, indices] = False
        open_ &= sizes > _MIN_PIXEL_GAIN
    if not covered.all():
        result[~covered] = flat[~covered].mean()
    return result.reshape(attributions.shape)
