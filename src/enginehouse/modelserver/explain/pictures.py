"""Attributions of an image, drawn: the image in grey with what counts in colour.

The fields of `visualization` are those of the original's metadata, the defaults its defaults as far as they are told:
`type` (Pixels, Outlines; ours: Raw for the numbers themselves), `polarity`, `color_map`, `overlay_type`,
`clip_above_percentile`, `clip_below_percentile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from enginehouse.modelserver.codecs import Array

RAW = "raw"
_COLOURS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "pink_green": ((0, 255, 0), (255, 0, 255)),
    "red_green": ((0, 255, 0), (255, 0, 0)),
    "green": ((0, 255, 0), (0, 255, 0)),
    "red": ((255, 0, 0), (255, 0, 0)),
    "blue": ((0, 0, 255), (0, 0, 255)),
}
"""By name: for what speaks for the label, and for what speaks against it."""
_GREY_SHARE = 0.3
_ALPHA = 0.7


def kind(visualization: Mapping[str, Any]) -> str:
    return str(visualization.get("type", "pixels")).lower()


def draw(image: Array, attributions: Array, visualization: Mapping[str, Any], *, regional: bool) -> Array:
    """(height, width, 3) uint8.

    Args:
        image: (height, width, channels) in 0 … 1.
        attributions: (height, width).
        regional: they are of regions, which are shown from the best 30 percent on.
    """
    polarity = str(visualization.get("polarity", "positive")).lower()
    positive = np.maximum(attributions, 0)
    negative = np.maximum(-attributions, 0)
    if regional and "polarity" not in visualization:
        positive, negative = attributions - attributions.min(), np.zeros_like(attributions)
    low = float(visualization.get("clip_below_percentile", 70.0 if regional else 62.0))
    high = float(visualization.get("clip_above_percentile", 99.9))
    weights = [
        _scaled(values, low, high) if polarity in (name, "both") else np.zeros_like(values)
        for name, values in (("positive", positive), ("negative", negative))
    ]
    if kind(visualization) == "outlines":
        weights = [_outline(weight) for weight in weights]
    colours = _COLOURS.get(str(visualization.get("color_map", "pink_green")).lower(), _COLOURS["pink_green"])
    ground = _ground(image, str(visualization.get("overlay_type", "grayscale")).lower(), weights[0] + weights[1])
    result = ground
    for weight, colour in zip(weights, colours, strict=True):
        share = (_ALPHA * weight)[..., None]
        result = result * (1 - share) + share * np.array(colour, dtype=np.float64)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _scaled(values: Array, low: float, high: float) -> Array:
    """0 … 1 between two percentiles, 0 below the lower one."""
    bottom, top = np.percentile(values, [min(low, high), high])
    if top <= 0:
        return np.zeros_like(values)
    scaled = np.minimum(values, top) / top
    return np.where((values >= bottom) & (values > 0), scaled, 0.0)


def _outline(weight: Array) -> Array:
    """The edge of what is not zero."""
    inside = np.pad(weight > 0, 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return ((weight > 0) & ~core).astype(np.float64)


def _ground(image: Array, overlay: str, weight: Array) -> Array:
    """What the colours are laid over."""
    colours: Array = np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]
    colours = 255 * np.clip(colours, 0, 1)
    if overlay == "none":
        return np.zeros_like(colours)
    if overlay == "original":
        return colours
    if overlay == "mask_black":
        return np.where(weight[..., None] > 0, colours, 0.0)
    grey: Array = colours @ np.array([0.299, 0.587, 0.114])
    return np.repeat((_GREY_SHARE * 255 + (1 - _GREY_SHARE) * grey)[..., None], 3, axis=-1)
