"""The model as an explanation needs it: a function from the features' arrays to scores.

An adapter that can be explained is also an `Explainable`; which methods are possible is told by the type of its
target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError
from enginehouse.modelserver.explain.metadata import FILE, Metadata

_MAX_ROWS = 1024
_MAX_BYTES = 16 * 1024 * 1024


class Target(ABC):
    """One output of a model, as a function of arrays. Belongs to the thread of its adapter.

    Attributes:
        parts: the arrays that the function takes; attributions are for (some of) them.
        output_name: of the output that is explained.
        label_names: what the labels are called, in their order; empty where they have no names.
        feature_names: what the columns of a table are called; empty where they have no names.
    """

    parts: tuple[TensorSpec, ...]
    output_name: str
    label_names: Sequence[str] = ()
    feature_names: Sequence[str] = ()

    @abstractmethod
    def prepare(self, request: Mapping[str, Any]) -> Call:
        """As in `Adapter.prepare`."""

    def arrays(self, call: Call) -> list[Array]:
        """The arrays of a call's instances, in the order of `parts`.

        Raises:
            PredictionError: the model failed where it prepares the instances.
        """
        return list(call.arrays)

    @abstractmethod
    def scores(self, arrays: Sequence[Array]) -> Array:
        """(n_rows, n_labels) float64.

        Raises:
            PredictionError: the model failed, or the output holds no numbers.
        """

    def encode_jpeg(self, picture: Array) -> bytes:
        """A picture, (height, width, 3) uint8, as JPEG.

        Raises:
            PredictionError: nothing here can do that.
        """
        raise PredictionError(
            f"Explanation failed: the runtime draws no pictures; set visualization.type of the input in {FILE} to "
            "Raw for the numbers."
        )

    def rows_at_once(self, arrays: Sequence[Array]) -> int:
        """How many rows like those of `arrays` one call should have."""
        if any(spec.shape and spec.shape[0] is not None for spec in self.parts):
            return 1
        row_bytes = sum(array[:1].nbytes for array in arrays)
        return max(1, min(_MAX_ROWS, _MAX_BYTES // max(row_bytes, 1)))


class DifferentiableTarget(Target):
    """A target that knows its gradients."""

    @abstractmethod
    def gradients(self, arrays: Sequence[Array], labels: Array, positions: Sequence[int]) -> list[Array]:
        """The gradients of each row's score of its label.

        Args:
            labels: (n_rows,) index of a label, row by row.
            positions: which of `arrays` are asked for; they are floating-point.

        Returns:
            One array per position, shaped as `arrays[position]`.
        """


class Explainable(ABC):
    """What an adapter is, too, whose models can be explained."""

    def signature_name(self, asked: Any) -> str:
        """The signature that a request means by its `signature_name`, None where it has none.

        Raises:
            PredictionError: there is none of that name.
        """
        return ""

    @abstractmethod
    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        """What is explained. Callers keep it: making it may take seconds.

        Args:
            signature: one of `signature_name`.
            gradients: a DifferentiableTarget is needed.

        Raises:
            PredictionError: there is no such tensor or output, or there are no gradients.
        """


def as_scores(output: Any, name: str) -> Array:
    """A model's output as (n_rows, n_labels) float64.

    Raises:
        PredictionError: it holds no numbers.
    """
    if isinstance(output, list) and output and isinstance(output[0], dict):  # label to score, as ONNX may have it
        output = [list(row.values()) for row in output]
    try:
        array = np.asarray(output, dtype=np.float64)
    except (TypeError, ValueError):
        raise PredictionError(
            f"Explanation failed: the output {name} holds no numbers, so that nothing can be attributed."
        ) from None
    return array.reshape(len(array), -1)


def scores_in_parts(target: Target, arrays: Sequence[Array]) -> Array:
    """`target.scores` in calls of a bearable size."""
    n_rows, step = len(arrays[0]), target.rows_at_once(arrays)
    starts = range(0, n_rows, step)
    return np.concatenate([target.scores([array[start : start + step] for array in arrays]) for start in starts])
