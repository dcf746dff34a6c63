"""The Open Inference Protocol's tensors as instances of the prediction API, and predictions as its tensors.

Protocol: https://github.com/kserve/open-inference-protocol, version 2. In: tensors as in the JSON of `/infer` and
what a model tells of its signature. Out: the body of a `:predict` request, and the tensors of its answer. All are
pure functions; the rows of the tensors go through the same batches as all other requests.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.modelserver.frames import pack_tensors

_DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
FORMATS = {
    "BOOL": "?",
    **dict(zip(("INT8", "INT16", "INT32", "INT64"), "bhiq", strict=True)),
    **dict(zip(("UINT8", "UINT16", "UINT32", "UINT64"), "BHIQ", strict=True)),
    **dict(zip(("FP16", "FP32", "FP64"), "efd", strict=True)),
}
"""The types whose values may come as bytes, little endian: as `struct` and numpy name them."""
_PLATFORMS = {
    "TENSORFLOW": "tensorflow_savedmodel",
    "SCIKIT_LEARN": "sklearn_joblib",
    "XGBOOST": "xgboost_booster",
    "PYTORCH": "pytorch_torchscript",
    "ONNX": "onnx_onnxv1",
}


_TABLE = "instances"
"""The only input of a model that takes tables, or whatever comes: its tensors may have any names."""


def platform_of(framework: str) -> str:
    """The protocol's name for what a model was made with."""
    return _PLATFORMS.get(framework, "custom")


def tensor_metadata(specs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Inputs or outputs of a signature as the protocol's `metadata_tensor`s."""
    return [
        {
            "name": name,
            "datatype": _DATATYPES.get(str(spec.get("dtype")), "FP64"),
            "shape": [-1 if size is None else size for size in spec.get("shape") or [None]],
        }
        for name, spec in specs.items()
    ]


def to_instances(inputs: Any, names: Sequence[str]) -> list[Any]:
    """The instances that the tensors of an inference request stand for.

    Args:
        inputs: a list of tensors, judged here. Their values are `data`, or bytes, `raw`: a whole number of values,
            little endian.
        names: of the signature's inputs; with one of them, instances are bare values.

    Raises:
        InvalidArgument: naming the input that is wrong.
    """
    _check(inputs, names)
    columns = {str(each.get("name", "")): _rows(each, f"inputs[{position}]") for position, each in enumerate(inputs)}
    if len(columns) == 1 and len(names) <= 1:
        return next(iter(columns.values()))
    # Columns of a table come with a second dimension of 1.
    plain = [[row[0] if _is_cell(row) and len(names) <= 1 else row for row in rows] for rows in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def to_packed(inputs: Any, names: Sequence[str], signature_name: str) -> bytes | None:
    """The request body that says the same in bytes, many times quicker to make and to read.

    Args:
        inputs, names: as of `to_instances`.

    Returns:
        What `modelserver.frames.pack_tensors` makes; None where not all tensors are bytes of numbers.

    Raises:
        InvalidArgument: naming the input that is wrong.
    """
    _check(inputs, names)
    if len(inputs) != max(len(names), 1) or any("raw" not in tensor for tensor in inputs):
        return None
    tensors = []
    for position, tensor in enumerate(inputs):
        kind, shape = FORMATS[tensor["datatype"]], tensor["shape"]
        _check_size(len(tensor["raw"]) // struct.calcsize(kind), shape, f"inputs[{position}]")
        tensors.append(({"name": tensor["name"], "dtype": f"<{kind}", "shape": shape}, tensor["raw"]))
    return pack_tensors(tensors, signature_name)


def _check(inputs: Any, names: Sequence[str]) -> None:
    """What can be said of tensors without their values."""
    if not isinstance(inputs, list) or not inputs or not all(isinstance(each, dict) for each in inputs):
        raise InvalidArgument("It must be a list of tensors.", field="inputs")
    for position, tensor in enumerate(inputs):
        shape = tensor.get("shape")
        if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
            raise InvalidArgument("It must be a list of sizes, the rows first.", field=f"inputs[{position}].shape")
    sizes = {str(tensor.get("name", "")): tensor["shape"][0] for tensor in inputs}
    if list(names) != [_TABLE] and sizes.keys() != set(names):
        raise InvalidArgument(
            f"The signature takes {', '.join(names)}; there came {', '.join(sizes)}.", field="inputs"
        )
    if len(set(sizes.values())) > 1:
        raise InvalidArgument(f"The tensors differ in their first dimension: {sizes}.", field="inputs")


def _check_size(n_values: int, shape: list[int], field: str) -> None:
    if n_values != math.prod(shape):
        raise InvalidArgument(
            f"It holds {n_values} values, but the shape {shape} needs {math.prod(shape)}.", field=f"{field}.data"
        )


def _is_cell(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 1


def _rows(tensor: Mapping[str, Any], field: str) -> list[Any]:
    shape, data = tensor["shape"], tensor.get("data")
    if "raw" in tensor:
        kind = FORMATS[tensor["datatype"]]
        data = list(struct.unpack(f"<{len(tensor['raw']) // struct.calcsize(kind)}{kind}", tensor["raw"]))
    if not isinstance(data, list):
        raise InvalidArgument(
            "It must be a list, flat or nested; binary tensors are not taken.", field=f"{field}.data"
        )
    rows = _flat(data)
    _check_size(len(rows), shape, field)
    for size in reversed(shape[1:]):
        rows = [rows[start : start + size] for start in range(0, len(rows), size or 1)]
    return rows


def _flat(data: list[Any]) -> list[Any]:
    while any(isinstance(each, list) for each in data):
        data = [item for each in data for item in (each if isinstance(each, list) else [each])]
    return data


def to_tensors(predictions: list[Any], specs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The outputs of an inference answer.

    Args:
        predictions: one per row: bare values, or objects by output.
        specs: the outputs that the model tells of itself.

    Returns:
        Tensors with flat data; bytes stay `{"b64": "…"}`.

    Raises:
        FailedPrecondition: the rows of an output differ in shape.
    """
    if predictions and isinstance(predictions[0], dict) and predictions[0].keys() != {"b64"}:
        columns = {name: [row[name] for row in predictions] for name in predictions[0]}
    else:
        columns = {next(iter(specs), "predictions"): predictions}
    return [_tensor(name, rows, specs.get(name, {})) for name, rows in columns.items()]


def _tensor(name: str, rows: list[Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    shape, first = [len(rows)], rows[0] if rows else None
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    data = _flat(rows)
    if len(data) != math.prod(shape):
        raise FailedPrecondition(f"The rows of the output {name} differ in shape, so that no tensor holds them.")
    datatype = _DATATYPES.get(str(spec.get("dtype"))) or _datatype_of(data)
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def as_json(tensor: dict[str, Any]) -> dict[str, Any]:
    """A tensor for the protocol's JSON, where bytes are their base64."""
    if tensor["datatype"] != "BYTES":
        return tensor
    data = [each["b64"] if isinstance(each, dict) and "b64" in each else each for each in tensor["data"]]
    return {**tensor, "data": data}


def _datatype_of(data: list[Any]) -> str:
    kinds = {type(each) for each in data if each is not None}
    if kinds <= {bool} and kinds:
        return "BOOL"
    if kinds <= {int} and kinds:
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"
