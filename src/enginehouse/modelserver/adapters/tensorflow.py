"""TensorFlow: a SavedModel (`saved_model.pb` or `.pbtxt`), of an Estimator, of Keras' `model.export()` or of anything
else with signatures; or a Keras file `model.keras`, which is exported first.

The model runs in a graph session through a prepared callable, the quickest safe call for small batches: the same
signature called eagerly takes a third longer, `model.predict` hundreds of times as long.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # read at import: drops the banner, keeps warnings
import tensorflow as tf

from enginehouse.modelserver.adapters.base import Adapter, Call, merge_key, named_columns
from enginehouse.modelserver.adapters.tensors import TensorSpec, to_tensor
from enginehouse.modelserver.codecs import Array, encode_bytes, is_b64, rows_of
from enginehouse.modelserver.errors import ModelLoadError, PredictionError

_DEFAULT_SIGNATURES = ("serving_default", "predict")
_WORDS_LIMIT = 2000


@dataclass(frozen=True)
class _Signature:
    """One way of calling the model. Inputs and outputs are in the order of their aliases."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: Callable[..., list[Any]]
    mergeable: bool


class TensorFlowAdapter(Adapter):
    """A SavedModel in a session.

    One output gives bare values, several give objects keyed by alias.
    """

    def __init__(self, session: Any, signatures: dict[str, _Signature]) -> None:
        self._session = session
        self._signatures = signatures
        self._default = next((name for name in _DEFAULT_SIGNATURES if name in signatures), None)
        if self._default is None and len(signatures) == 1:
            self._default = next(iter(signatures))

    @classmethod
    def load(cls, directory: Path) -> TensorFlowAdapter:
        try:
            if not any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
                return cls._load_keras(directory)
            return cls._load_saved_model(directory)
        except ModelLoadError:
            raise
        except Exception as error:
            raise ModelLoadError(f"Error loading the model: Could not load model: {_words(error)}") from error

    @classmethod
    def _load_keras(cls, directory: Path) -> TensorFlowAdapter:
        path = directory / "model.keras"
        if not path.is_file():
            raise ModelLoadError(
                "The model directory is expected to contain exactly one of the following: "
                "'saved_model.pb' file or 'saved_model.pbtxt' file. Please use SavedModel."
            )
        model = tf.keras.models.load_model(path, compile=False)
        with tempfile.TemporaryDirectory() as exported:
            model.export(exported, verbose=False)
            return cls._load_saved_model(Path(exported))

    @classmethod
    def _load_saved_model(cls, directory: Path) -> TensorFlowAdapter:
        v1 = tf.compat.v1
        session = v1.Session(graph=tf.Graph())
        meta_graph = v1.saved_model.load(session, ["serve"], str(directory))
        signatures = {
            name: _signature(session, definition)
            for name, definition in sorted(meta_graph.signature_def.items())
            if definition.inputs and definition.outputs
        }
        if not signatures:
            raise ModelLoadError("MetaGraph must have at least one signature_def with inputs and outputs.")
        return cls(session, signatures)

    def signatures(self) -> dict[str, Any]:
        return {
            name: {
                "inputs": {spec.alias: spec.describe() for spec in signature.inputs},
                "outputs": {spec.alias: spec.describe() for spec in signature.outputs},
            }
            for name, signature in self._signatures.items()
        }

    def prepare(self, request: Mapping[str, Any]) -> Call:
        name = self._name(request.get("signature_name"))
        signature = self._signatures[name]
        instances = request["instances"]
        if len(signature.inputs) == 1:
            columns = [_single_column(instances, signature.inputs[0].alias)]
        else:
            columns = named_columns(instances, [spec.alias for spec in signature.inputs])
        arrays = tuple(to_tensor(spec, column) for spec, column in zip(signature.inputs, columns, strict=True))
        key = merge_key(name, arrays) if signature.mergeable else None
        return Call(name, arrays, len(instances), key)

    def _name(self, asked: Any) -> str:
        name = asked or self._default
        if not isinstance(name, str) or name not in self._signatures:
            raise PredictionError(
                f"No signature found for signature key {name or _DEFAULT_SIGNATURES[0]}. "
                f"The model has: {', '.join(self._signatures)}."
            )
        return name

    def prepare_rows(self, table: Array, signature_name: str, *, named: bool) -> Call | None:
        name = self._name(signature_name)
        inputs = self._signatures[name].inputs
        if any(spec.dtype.kind != "f" for spec in inputs):
            return None
        with np.errstate(over="ignore"):  # as in `tensors`
            if len(inputs) == 1 and inputs[0].shape == (None, table.shape[1]):
                return Call(name, (table.astype(inputs[0].dtype),), len(table), None)
            if named and all(spec.shape in ((None,), (None, 1)) for spec in inputs):
                columns = zip(inputs, table.T, strict=True)
                arrays = (column.astype(spec.dtype).reshape(-1, *spec.shape[1:]) for spec, column in columns)  # type: ignore[index]
                return Call(name, tuple(arrays), len(table), None)
        return None

    def takes_text(self, signature_name: str) -> bool:
        spec, *more = self._signatures[self._name(signature_name)].inputs
        return spec.is_string and not more

    def input_names(self, signature_name: str) -> list[str] | None:
        return [spec.alias for spec in self._signatures[self._name(signature_name)].inputs]

    def run(self, call: Call) -> list[Any]:
        signature = self._signatures[call.signature]
        try:
            outputs = signature.function(*call.arrays)
        except Exception as error:
            raise PredictionError(f"Exception during running the graph: {_words(error)}") from error
        columns = [_rows(spec.alias, output) for spec, output in zip(signature.outputs, outputs, strict=True)]
        if len(columns) == 1:
            return columns[0]
        aliases = [spec.alias for spec in signature.outputs]
        sizes = {alias: len(column) for alias, column in zip(aliases, columns, strict=True)}
        if len(set(sizes.values())) != 1:
            raise PredictionError(
                "Bad output from running tensorflow session: outputs had differing sizes in the batch (outer) "
                f"dimension. See the outputs and their size: {sizes}. Check your model for bugs that effect the size "
                "of the outputs."
            )
        return [dict(zip(aliases, row, strict=True)) for row in zip(*columns, strict=True)]

    def self_test(self) -> str:
        name = self._default or next(iter(self._signatures))
        signature = self._signatures[name]
        if any(spec.shape is None for spec in signature.inputs):
            return "inconclusive: an input of unknown shape"
        arrays = tuple(spec.zeros() for spec in signature.inputs)
        try:
            signature.function(*arrays)
        except tf.errors.InvalidArgumentError as error:
            return f"inconclusive: the model refused a made-up instance of zeros or empty text with {_words(error)}"
        except Exception as error:
            raise ModelLoadError(
                f"Error loading the model: a test call of the signature {name} failed (TensorFlow {tf.__version__}): "
                f"{_words(error)}"
            ) from error
        return "passed"


def _signature(session: Any, definition: Any) -> _Signature:
    inputs = tuple(_spec(alias, info) for alias, info in sorted(definition.inputs.items()))
    outputs = tuple(_spec(alias, info) for alias, info in sorted(definition.outputs.items()))
    tensor = session.graph.get_tensor_by_name
    function = session.make_callable(
        [tensor(spec.tensor_name) for spec in outputs], feed_list=[tensor(spec.tensor_name) for spec in inputs]
    )
    # Only what may have any number of rows, in and out, can be merged and taken apart again.
    mergeable = all(spec.shape is not None and spec.shape[:1] == (None,) for spec in (*inputs, *outputs))
    return _Signature(inputs, outputs, function, mergeable)


def _spec(alias: str, info: Any) -> TensorSpec:
    if not info.name:
        raise ModelLoadError(
            f"The input or output {alias} is a sparse or composite tensor; only dense ones are served."
        )
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(None if dim.size < 0 else int(dim.size) for dim in shape.dim)
    return TensorSpec(alias, info.name, np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype), dims)


def _single_column(instances: list[Any], alias: str) -> list[Any]:
    """The values of a model's only input: bare, or each in an object under the input's alias."""
    if not any(type(instance) is dict for instance in instances):
        return instances
    column = []
    for index, instance in enumerate(instances):
        if type(instance) is not dict or (is_b64(instance) and alias != "b64"):
            column.append(instance)
        elif len(instance) == 1 and alias in instance:
            column.append(instance[alias])
        else:
            raise PredictionError(
                f"Expected tensor name: {alias}, got tensor name: {list(instance)}. (In instance {index}.)"
            )
    return column


def _rows(alias: str, output: Array) -> list[Any]:
    """One value per row; an output without rows counts as one row."""
    if output.ndim == 0:
        output = output[np.newaxis]
    if output.dtype.kind in "OS":
        rows: list[Any] = encode_bytes(output.tolist(), alias=alias)
        return rows
    return rows_of(output)


def _words(error: Exception) -> str:
    """TensorFlow's own words without the trace of the graph's construction."""
    words = getattr(error, "message", None) or str(error) or type(error).__name__
    for end in ("\n\nOriginal stack trace", "\n\nErrors may have originated", "Detected at node"):
        words = words.split(end)[0]
    return words.strip()[:_WORDS_LIMIT]
