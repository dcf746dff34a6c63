"""The explanation of one instance as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError
from enginehouse.modelserver.explain import pictures
from enginehouse.modelserver.explain.baselines import Feature
from enginehouse.modelserver.explain.metadata import (
    BAG_OF_FEATURES,
    COMBINED_EMBEDDING,
    CONCAT_EMBEDDING,
    FILE,
    INDICATOR,
    InputMetadata,
)
from enginehouse.modelserver.explain.target import Target


def answer_of(
    target: Target,
    features: Sequence[Feature],
    attributions: Sequence[Array],
    values: Sequence[Array],
    *,
    label: int,
    baseline_score: float,
    example_score: float,
    approx_error: float,
    regional: bool,
) -> dict[str, Any]:
    """One element of `explanations`.

    Args:
        attributions: one array per feature input, shaped as the instance's value; (height, width) for regions.
        values: the instance's values.
    """
    told: dict[str, Any] = {}
    for feature, attribution, value in zip(features, attributions, values, strict=True):
        told.update(_attributions(target, feature, attribution, value, regional=regional))
    entry: dict[str, Any] = {
        "attributions": told,
        "baseline_score": baseline_score,
        "example_score": example_score,
        "approx_error": approx_error,
        "label_index": label,
        "output_name": target.output_name,
    }
    if label < len(target.label_names):
        entry["label_name"] = target.label_names[label]
    return {"attributions_by_label": [entry]}


def _attributions(
    target: Target, feature: Feature, attribution: Array, value: Array, *, regional: bool
) -> dict[str, Any]:
    metadata = feature.metadata
    names = metadata.feature_names or target.feature_names
    is_named = metadata.encoding in (BAG_OF_FEATURES, INDICATOR) or bool(target.feature_names)
    if (regional or metadata.modality == "image") and pictures.kind(metadata.visualization) != pictures.RAW:
        return {metadata.name: {"b64_jpeg": _jpeg(target, feature, attribution, value, regional=regional)}}
    if metadata.encoding == COMBINED_EMBEDDING:
        return {metadata.name: float(attribution.sum())}
    if metadata.encoding == CONCAT_EMBEDDING:
        return {metadata.name: attribution.sum(axis=-1).tolist()}
    if is_named and attribution.ndim == 1:
        if len(names) != len(attribution):
            raise PredictionError(
                f"Explanation failed: {FILE} names {len(names)} features of the input {metadata.name}, which has "
                f"{len(attribution)}."
            )
        return dict(zip(names, attribution.tolist(), strict=True))
    return {metadata.name: attribution.tolist()}


def value_range(metadata: InputMetadata, image: Array) -> tuple[float, float]:
    """What black and white are: as the metadata's domain says, else by what the image holds."""
    high = 255.0 if image.size and float(np.nanmax(image)) > 1.5 else 1.0
    return float(metadata.domain.get("min", 0.0)), float(metadata.domain.get("max", high))


def pixels(images: Array, low: float, high: float) -> Array:
    """Images with black at 0 and white at 1."""
    return np.clip((images.astype(np.float64) - low) / ((high - low) or 1.0), 0, 1)


def _jpeg(target: Target, feature: Feature, attribution: Array, value: Array, *, regional: bool) -> str:
    metadata = feature.metadata
    if value.ndim != 3:
        raise PredictionError(
            f"Explanation failed: the input {metadata.name} is no image (height, width, channels); its shape is "
            f"{value.shape}."
        )
    image = pixels(value, *value_range(metadata, value))
    heat = attribution if attribution.ndim == 2 else attribution.sum(axis=-1)
    drawn = pictures.draw(image, heat, metadata.visualization, regional=regional)
    return base64.b64encode(target.encode_jpeg(drawn)).decode("ascii")
