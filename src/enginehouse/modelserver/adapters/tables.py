"""Instances as a table: what scikit-learn and XGBoost have in common.

Comes in: the `instances` of a request; goes out: one array (n_rows, n_features), or whatever shape lists of lists
give.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Adapter, Call, merge_key, named_columns
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array, decode_b64
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Explainable, Target, as_scores

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


OUTPUTS = {
    "predict_proba": "probabilities",
    "decision_function": "scores",
    "margin": "margin",
    "predict": "predictions",
}
"""What is explained, by the way to get it."""


class TableAdapter(Adapter, Explainable):
    """What models of one table have in common.

    Args:
        library: name and version, for messages.
        n_features: columns of the table; None where the model does not say.
        feature_names: what they are called; None where they have no names.
        explained: one of OUTPUTS, which `score` gives.
        labels: of a classifier, in the order of its scores.
    """

    def __init__(
        self,
        library: str,
        n_features: int | None,
        feature_names: list[str] | None,
        explained: str,
        labels: Sequence[str],
    ) -> None:
        self._library = library
        self._n_features = n_features
        self._feature_names = feature_names
        self._explained = explained
        self._labels = labels

    @abstractmethod
    def score(self, table: Array) -> Any:
        """The output that is explained, (n_rows,) or (n_rows, n_labels); may raise anything."""

    def prepare_rows(self, table: Array, signature_name: str, *, named: bool) -> Call | None:
        if signature_name or table.shape[1] != self._n_features:
            return None
        return Call(SIGNATURE, (table,), len(table), None)

    def input_names(self, signature_name: str) -> list[str] | None:
        return self._feature_names

    def signature_name(self, asked: Any) -> str:
        return SIGNATURE

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        if gradients:
            raise PredictionError(f"Explanation failed: {self._library} gives no gradients; use sampled Shapley.")
        return TableTarget(
            metadata,
            self.prepare,
            self.score,
            OUTPUTS[self._explained],
            label_names=self._labels,
            feature_names=self._feature_names or (),
        )


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
