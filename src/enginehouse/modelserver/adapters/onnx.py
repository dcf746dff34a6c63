"""ONNX: `model.onnx`, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from enginehouse.modelserver.adapters.signatures import DEFAULT_SIGNATURES, Signature, SignatureAdapter
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.errors import ModelLoadError, describe

MODEL_FILE = "model.onnx"
_DTYPES = {
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    "string": "object",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}


class OnnxAdapter(SignatureAdapter):
    """A session with one signature. Its inputs and outputs are those of the graph, by their names there."""

    framework = f"onnxruntime {onnxruntime.__version__}"
    data_errors = (states.InvalidArgument, states.RuntimeException, states.Fail)

    @classmethod
    def load(cls, directory: Path) -> OnnxAdapter:
        path = directory / MODEL_FILE
        if not path.is_file():
            raise ModelLoadError(f"Could not find {MODEL_FILE} in the model directory.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a served batch is too small for more
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            inputs = [_spec(each) for each in session.get_inputs()]
        except Exception as error:
            raise ModelLoadError(
                f"Unexpected error when loading the model: Could not load {MODEL_FILE}: {describe(error)}"
            ) from error
        outputs = [_spec(each) for each in session.get_outputs()]
        names = [spec.tensor_name for spec in outputs]

        def call(*arrays: Any) -> list[Any]:
            feed = zip(inputs, arrays, strict=True)
            results = session.run(names, {spec.tensor_name: _fed(spec, array) for spec, array in feed})
            return list(results)

        return cls({DEFAULT_SIGNATURES[0]: Signature.of(inputs, outputs, call)})


def _fed(spec: TensorSpec, array: Any) -> Any:
    """onnxruntime wants text where the others want bytes."""
    if not spec.is_string:
        return array
    texts = [cell.decode("utf-8", "surrogateescape") for cell in array.flat]
    return np.array(texts, dtype=object).reshape(array.shape)


def _spec(node: Any) -> TensorSpec:
    """`tensor(float)` with [None, 4] or ['batch', 4]; what is no tensor (a list of maps) is told as objects."""
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        return TensorSpec(node.name, node.name, np.dtype(object), (None,))
    dims = tuple(dim if isinstance(dim, int) else None for dim in node.shape)
    return TensorSpec(node.name, node.name, np.dtype(_DTYPES[kind]), dims)
