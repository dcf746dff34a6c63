"""Models that take and give named tensors: what TensorFlow, PyTorch and ONNX have in common.

A subclass loads the model and makes a `Signature` of each way to call it; all that lies between JSON and tensors is
here. One output gives bare values, several give objects keyed by alias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Adapter, Call, merge_key, named_columns
from enginehouse.modelserver.adapters.signature_target import SignatureTarget
from enginehouse.modelserver.adapters.tensors import TensorSpec, to_tensor
from enginehouse.modelserver.codecs import encode_bytes, is_b64, jsonable, rows_of
from enginehouse.modelserver.errors import OUTPUTS_CODE, ModelLoadError, PredictionError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Explainable, Target

DEFAULT_SIGNATURES = ("serving_default", "predict")


@dataclass(frozen=True)
class Signature:
    """One way of calling a model.

    Attributes:
        inputs, outputs: in the order in which `function` takes and gives them.
        function: from one array per input to one array (or list of rows) per output; belongs to one thread.
        mergeable: the rows of several requests may go into one call.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    function: Callable[..., Sequence[Any]]
    mergeable: bool

    @classmethod
    def of(
        cls, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], function: Callable[..., Sequence[Any]]
    ) -> Signature:
        """A signature; only what may have any number of rows, in and out, can be merged and taken apart again."""
        specs = (*inputs, *outputs)
        mergeable = all(spec.shape is not None and spec.shape[:1] == (None,) for spec in specs)
        return cls(tuple(inputs), tuple(outputs), function, mergeable)


class SignatureAdapter(Adapter, Explainable):
    """An adapter over signatures.

    Args:
        signatures: name → signature; one at least.

    Attributes:
        framework: its name and version, for messages.
        data_errors: what the framework raises when it does not like the data, rather than for a fault of the model.
    """

    takes_arrays = True
    framework = ""
    data_errors: tuple[type[Exception], ...] = ()

    def __init__(self, signatures: dict[str, Signature]) -> None:
        self._signatures = signatures
        self._default = next((name for name in DEFAULT_SIGNATURES if name in signatures), None)
        if self._default is None and len(signatures) == 1:
            self._default = next(iter(signatures))

    def blames_data(self, error: Exception) -> bool:
        """Whether the framework does not like the data, rather than having met a fault of the model."""
        return isinstance(error, self.data_errors)

    def words(self, error: Exception) -> str:
        """The framework's own words, without what only its makers can read."""
        return describe(error)

    def signatures(self) -> dict[str, Any]:
        return {
            name: {
                "inputs": {spec.alias: spec.describe() for spec in signature.inputs},
                "outputs": {spec.alias: spec.describe() for spec in signature.outputs},
            }
            for name, signature in self._signatures.items()
        }

    def prepare(self, request: Mapping[str, Any]) -> Call:
        name = self.signature_name(request.get("signature_name"))
        signature = self._signatures[name]
        instances = request["instances"]
        if len(signature.inputs) == 1:
            columns = [_single_column(instances, signature.inputs[0].alias)]
        else:
            columns = named_columns(instances, [spec.alias for spec in signature.inputs])
        arrays = tuple(to_tensor(spec, column) for spec, column in zip(signature.inputs, columns, strict=True))
        key = merge_key(name, arrays) if signature.mergeable else None
        return Call(name, arrays, len(instances), key)

    def inputs(self, signature_name: str) -> tuple[TensorSpec, ...]:
        """What a signature takes, in the order of a call's arrays."""
        return self._signatures[signature_name].inputs

    def signature_name(self, asked: Any) -> str:
        """The signature that a request means.

        Raises:
            PredictionError: there is none of that name, or none is the default.
        """
        name = asked or self._default
        if not isinstance(name, str) or name not in self._signatures:
            raise PredictionError(
                f"No signature found for signature key {name or DEFAULT_SIGNATURES[0]}. "
                f"The model has: {', '.join(self._signatures)}."
            )
        return name

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        if gradients:
            raise PredictionError(f"Explanation failed: {self.framework} gives no gradients; use sampled Shapley.")
        return SignatureTarget(self._signatures[signature], metadata, self.prepare, self.words)

    def prepare_rows(self, table: Any, signature_name: str, *, named: bool) -> Call | None:
        name = self.signature_name(signature_name)
        inputs = self._signatures[name].inputs
        if any(spec.dtype.kind != "f" for spec in inputs):
            return None
        with np.errstate(over="ignore"):  # as in `tensors`
            if len(inputs) == 1 and inputs[0].shape == (None, table.shape[1]):
                return Call(name, (table.astype(inputs[0].dtype),), len(table), None)
            if named and all(spec.shape in ((None,), (None, 1)) for spec in inputs):
                columns = zip(inputs, table.T, strict=True)
                arrays = [column.astype(spec.dtype).reshape(-1, *(spec.shape or ())[1:]) for spec, column in columns]
                return Call(name, tuple(arrays), len(table), None)
        return None

    def takes_text(self, signature_name: str) -> bool:
        spec, *more = self._signatures[self.signature_name(signature_name)].inputs
        return spec.is_string and not more

    def input_names(self, signature_name: str) -> list[str] | None:
        return [spec.alias for spec in self._signatures[self.signature_name(signature_name)].inputs]

    def run(self, call: Call) -> list[Any]:
        signature = self._signatures[call.signature]
        try:
            outputs = signature.function(*call.arrays)
        except Exception as error:
            raise PredictionError(f"Exception during running the graph: {self.words(error)}") from error
        columns = [_rows(spec.alias, output) for spec, output in zip(signature.outputs, outputs, strict=True)]
        if len(columns) == 1:
            return columns[0]
        aliases = [spec.alias for spec in signature.outputs]
        sizes = {alias: len(column) for alias, column in zip(aliases, columns, strict=True)}
        if len(set(sizes.values())) != 1:
            raise PredictionError(
                "Bad output from running tensorflow session: outputs had differing sizes in the batch (outer) "
                f"dimension. See the outputs and their size: {sizes}. Check your model for bugs that effect the size "
                "of the outputs.",
                OUTPUTS_CODE,
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
        except Exception as error:
            if self.blames_data(error):
                return (
                    "inconclusive: the model refused a made-up instance of zeros or empty text with "
                    f"{self.words(error)}"
                )
            raise ModelLoadError(
                f"Error loading the model: a test call of the signature {name} failed ({self.framework}): "
                f"{self.words(error)}"
            ) from error
        return "passed"


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


def _rows(alias: str, output: Any) -> list[Any]:
    """One value per row; an output without rows counts as one row."""
    if isinstance(output, list):
        return list(jsonable(output))
    array = np.atleast_1d(output)
    return list(encode_bytes(array.tolist(), alias=alias)) if array.dtype.kind in "OS" else rows_of(array)
