"""Instances as a table: what scikit-learn and XGBoost have in common.

Comes in: the `instances` of a request; goes out: one array (n_rows, n_features), or whatever shape lists of lists
give.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Call, merge_key, named_columns
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array, decode_b64
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Target, as_scores

SIGNATURE = "predict"
PICKLED_FILES = ("model.joblib", "model.pkl", "model.skops")


def load_pickled(directory: Path) -> Any:
    """The object in model.joblib, else in model.pkl, else in model.skops.

    Raises:
        ModelLoadError: there is neither, or it cannot be read here.
    """
    path = next((p for name in PICKLED_FILES if (p := directory / name).is_file()), None)
    if path is None:
        raise ModelLoadError(f"Could not find any of {', '.join(PICKLED_FILES)} among {_listing(directory)}.")
    try:
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                try:
                    return pickle.load(file)
                except pickle.UnpicklingError:
                    pass  # joblib's own format under the other name
        if path.suffix == ".skops":
            # Whoever deploys a model lets it run here, as with a pickle; all types in the file are trusted.
            from skops import io as skops_io

            return skops_io.load(path, trusted=skops_io.get_untrusted_types(file=path))
        import joblib

        return joblib.load(path)
    except Exception as error:
        raise ModelLoadError(
            f"Unexpected error when loading the model: Could not load {path.name}: {describe(error)}"
            f" ({type(error).__name__})"
        ) from error


def _listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())[:20]


def type_name(value: object) -> str:
    """`builtins.int` for 3."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def prepare_table(request: Mapping[str, Any], feature_names: Sequence[str] | None) -> Call:
    """The call of a model with one unnamed signature: lists of values, or objects keyed by the feature names.

    Raises:
        PredictionError: the instances differ in shape, or are objects and the model has no feature names.
    """
    instances = request["instances"]
    if type(instances[0]) is dict and "b64" not in instances[0]:
        if not feature_names:
            raise PredictionError(
                "Invalid inputs: instances are objects, but the model was trained without feature names. "
                "Give each instance as a list of values."
            )
        columns = named_columns(instances, feature_names)
        instances = [list(row) for row in zip(*columns, strict=True)]
    array = to_array(instances)
    return Call(SIGNATURE, (array,), len(array), merge_key(SIGNATURE, (array,)))


class TableTarget(Target):
    """A model of one table, as explanations ask for it: every column is a feature.

    Args:
        prepare: as `Adapter.prepare`.
        score: from a table to scores, (n_rows,) or (n_rows, n_labels); may raise anything.
        output_name: what `score` gives.
        label_names: of a classifier, in their order.
        feature_names: of the columns, where the model knows them.
    """

    parts = (TensorSpec("instances", "instances", np.dtype(np.float64), None),)

    def __init__(
        self,
        metadata: Metadata,
        prepare: Callable[[Mapping[str, Any]], Call],
        score: Callable[[Array], Any],
        output_name: str,
        *,
        label_names: Sequence[str] = (),
        feature_names: Sequence[str] = (),
    ) -> None:
        self._prepare = prepare
        self._score = score
        self.output_name = output_name
        self.label_names = (metadata.output.label_names if metadata.output else ()) or label_names
        told = [each.feature_names for each in metadata.inputs if each.feature_names]
        self.feature_names = told[0] if told else feature_names

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return self._prepare(request)

    def arrays(self, call: Call) -> list[Array]:
        table = call.arrays[0]
        return [table.astype(np.float64) if table.dtype.kind in "iub" else table]

    def scores(self, arrays: Sequence[Array]) -> Array:
        try:
            output = self._score(arrays[0])
        except PredictionError:
            raise
        except Exception as error:
            raise PredictionError(f"Exception during prediction: {describe(error)}") from error
        return as_scores(output, self.output_name)


def to_array(instances: list[Any]) -> Array:
    """Instances as one array: numbers as they are, null beside numbers as NaN, text and mixed rows as objects.

    Raises:
        PredictionError: the instances are ragged; names the first that differs from instance 0.
    """
    try:
        array = np.array(instances)
    except (ValueError, OverflowError) as error:
        raise PredictionError(_ragged(instances, describe(error))) from None
    if array.dtype.kind in "fiub":
        return array
    # Numbers beside text would have become text: take every cell as it is. The shape stays what numpy made of it.
    array = np.array(decode_b64(instances), dtype=object)
    if all(cell is None or type(cell) in (float, int) for cell in array.flat):
        return array.astype(np.float64)
    return array


def _ragged(instances: list[Any], words: str) -> str:
    shapes = []
    for index, instance in enumerate(instances):
        try:
            shapes.append(np.shape(np.array(instance)))
        except ValueError:
            return f"Invalid inputs: the lists in instance {index} differ in length: {words}"
        if shapes[-1] != shapes[0]:
            return (
                f"Invalid inputs: instance {index} has the shape {shapes[-1]}, but instance 0 has {shapes[0]}; "
                "all instances of a request need the same."
            )
    return f"Invalid inputs: {words}"
