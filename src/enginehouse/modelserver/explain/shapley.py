"""Sampled Shapley values: what a feature adds when it joins the others, averaged over orders of joining.

Castro, Gómez, Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009. A feature that has not
joined has its baseline's value. Along each order the additions sum up to the difference of the two scores, so that
completeness holds exactly; what is uncertain is the share of each feature. When there are no more orders than paths,
all are taken and the values are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError
from enginehouse.modelserver.explain.target import Target

MAX_FEATURES = 1024
_SEED = 0
"""The same orders for all rows of all requests: the same instance is always explained in the same way."""


def orders(n_features: int, n_paths: int) -> tuple[Array, bool]:
    """(n_paths, n_features) permutations, and whether they are all that there are."""
    if n_features <= 12 and math.factorial(n_features) <= n_paths:
        return np.array(list(itertools.permutations(range(n_features)))), True
    random = np.random.default_rng(_SEED)
    return np.stack([random.permutation(n_features) for _ in range(n_paths)]), False


def sample(
    target: Target,
    arrays: Sequence[Array],
    positions: Sequence[int],
    labels: Array,
    baseline: Sequence[Array],
    *,
    paths: int,
) -> tuple[list[Array], Array]:
    """The Shapley values of every element of the arrays at `positions`.

    Args:
        baseline: one array per position, shaped as `arrays[position]`.
        labels: (n_rows,) the label of each row whose score is explained.

    Returns:
        One float64 array per position; and (n_rows,) the standard error of the values, as the length of the vector of
        the errors of all features.

    Raises:
        PredictionError: too many features.
    """
    n_rows = len(labels)
    sizes = [_size(arrays[position]) for position in positions]
    n_features = sum(sizes)
    if n_features > MAX_FEATURES:
        raise PredictionError(
            f"Explanation failed: sampled Shapley takes at most {MAX_FEATURES} features, there are {n_features}. Use "
            "integrated gradients, or name fewer inputs in explanation_metadata.json."
        )
    joining, complete = orders(n_features, paths)
    prefixes = np.zeros((len(joining), n_features + 1, n_features), dtype=bool)
    for path, order in enumerate(joining):
        for step, feature in enumerate(order):
            prefixes[path, step + 1] = prefixes[path, step]
            prefixes[path, step + 1, feature] = True
    masks, where = np.unique(prefixes.reshape(-1, n_features), axis=0, return_inverse=True)
    values = _values(target, arrays, positions, labels, baseline, masks)  # (n_rows, n_masks)
    along = values[:, where.reshape(len(joining), n_features + 1)]
    added = np.empty((n_rows, len(joining), n_features))
    for path, order in enumerate(joining):
        added[:, path, order] = np.diff(along[:, path], axis=1)
    flat = added.mean(axis=1)
    error = np.zeros(n_rows)
    if not complete and len(joining) > 1:
        error = np.linalg.norm(added.std(axis=1, ddof=1) / math.sqrt(len(joining)), axis=1)
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
    return [p.reshape(arrays[position].shape) for p, position in zip(parts, positions, strict=True)], error


def _size(array: Array) -> int:
    """How many features one row has."""
    return int(np.prod(array.shape[1:], dtype=np.int64))


def _values(
    target: Target,
    arrays: Sequence[Array],
    positions: Sequence[int],
    labels: Array,
    baseline: Sequence[Array],
    masks: Array,
) -> Array:
    """(n_rows, n_masks) scores of the instances with the features of each mask, and the baseline's for the others."""
    n_rows, n_masks = len(labels), len(masks)
    values = np.empty(n_rows * n_masks)
    step = target.rows_at_once(arrays)
    for start in range(0, n_rows * n_masks, step):
        rows, columns = np.divmod(np.arange(start, min(start + step, n_rows * n_masks)), n_masks)
        mixed = [array[rows] for array in arrays]
        offset = 0
        for position, base in zip(positions, baseline, strict=True):
            array = arrays[position]
            size = _size(array)
            mask = masks[columns, offset : offset + size].reshape(len(rows), *array.shape[1:])
            mixed[position] = np.where(mask, array[rows], base[rows])
            offset += size
        values[start : start + len(rows)] = target.scores(mixed)[np.arange(len(rows)), labels[rows]]
    return values.reshape(n_rows, n_masks)
