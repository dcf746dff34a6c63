"""Which inputs are explained, and what they are compared with.

In: the arrays of a call and the metadata. Out: for each explained input its position and its baselines, shaped as the
instances are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array, decode_b64, shape_text
from enginehouse.modelserver.errors import PredictionError
from enginehouse.modelserver.explain.metadata import FILE, InputMetadata, Metadata


@dataclass(frozen=True)
class Feature:
    """One explained input: where it is among the arrays, and what the metadata says of it."""

    position: int
    metadata: InputMetadata


def features_of(parts: Sequence[TensorSpec], metadata: Metadata, *, floats: bool) -> list[Feature]:
    """The explained inputs: those of the metadata, or all.

    Args:
        floats: only floating-point inputs can be explained.

    Raises:
        PredictionError: the metadata names an input that the model has not, or none can be explained.
    """
    if metadata.inputs:
        found = [Feature(_position(parts, told), told) for told in metadata.inputs]
        wrong = next((f for f in found if floats and parts[f.position].dtype.kind != "f"), None)
        if wrong is not None:
            raise PredictionError(
                f"Explanation failed: the input {wrong.metadata.name} in {FILE} is no floating-point tensor, so that "
                "it has no gradients; name an encoded_tensor_name, or use sampled Shapley."
            )
        return found
    found = [
        Feature(position, InputMetadata(spec.alias))
        for position, spec in enumerate(parts)
        if not floats or spec.dtype.kind == "f"
    ]
    if not found:
        raise PredictionError(
            "Explanation failed: no input of the model is a floating-point tensor, so that there are no gradients; "
            "use sampled Shapley."
        )
    return found


def _position(parts: Sequence[TensorSpec], told: InputMetadata) -> int:
    wanted = told.explained_tensor
    for position, spec in enumerate(parts):
        if wanted in (spec.tensor_name, spec.alias, spec.tensor_name.partition(":")[0]) and wanted:
            return position
    for position, spec in enumerate(parts):
        if told.name == spec.alias:
            return position
    if len(parts) == 1 and not wanted:
        return 0
    raise PredictionError(
        f"Explanation failed: {FILE} names the input {told.name} ({wanted or 'no tensor'}), but the model has: "
        f"{', '.join(f'{spec.alias} ({spec.tensor_name})' for spec in parts)}."
    )


def baselines_of(features: Sequence[Feature], arrays: Sequence[Array]) -> list[list[Array]]:
    """The baselines, each a list with one array per feature, shaped as `arrays[position]`.

    Raises:
        PredictionError: a baseline in the metadata does not fit the instances.
    """
    n_baselines = max(len(feature.metadata.baselines) or 1 for feature in features)
    result = []
    for number in range(n_baselines):
        row = []
        for feature in features:
            told = feature.metadata.baselines
            array = arrays[feature.position]
            value = told[min(number, len(told) - 1)] if told else None
            row.append(_default(array) if value is None else _shaped(feature.metadata.name, value, array))
        result.append(row)
    return result


def _default(array: Array) -> Array:
    """Zeros; among texts the empty one, for every cell by its own type."""
    if array.dtype.kind in "fiubc":
        return np.zeros_like(array)
    blank = np.empty_like(array)
    blank.ravel()[:] = [type(cell)() if isinstance(cell, (str, bytes)) else 0 for cell in array.ravel()]
    return blank


def _shaped(name: str, value: Any, array: Array) -> Array:
    """A baseline as often as there are rows."""
    value = decode_b64(value)
    try:
        if array.dtype.kind == "O":
            base = np.array(value, dtype=object)
            if any(isinstance(cell, bytes) for cell in array.flat):
                base.ravel()[:] = [cell.encode() if isinstance(cell, str) else cell for cell in base.ravel()]
        else:
            base = np.array(value).astype(array.dtype)
        return np.array(np.broadcast_to(base, array.shape))
    except (ValueError, TypeError):
        raise PredictionError(
            f"Explanation failed: a baseline of the input {name} in {FILE} does not fit an instance, whose shape is "
            f"{shape_text(array.shape[1:])}."
        ) from None
