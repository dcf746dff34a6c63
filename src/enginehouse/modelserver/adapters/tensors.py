"""JSON values to tensors of a given dtype and shape, as strictly as TensorFlow does it.

Comes in: one value per instance for one input; goes out: one array (n_rows, …) that can be fed. Needs no TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from enginehouse.modelserver.codecs import Array, decode_b64, dtype_name, shape_text
from enginehouse.modelserver.errors import PredictionError

_TAKES = {"f": "fiu", "V": "fiu", "c": "fiu", "i": "iu", "u": "iu", "b": "b"}
"""Which kinds of numpy dtypes, as JSON gives them, a tensor's kind takes. (V: bfloat16 and its like.)"""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Args:
        alias: its name in JSON.
        tensor_name: its name in the graph.
        dtype: numpy's; object for strings.
        shape: with the rows as the first dimension; None in it for any size, None for any shape.
    """

    alias: str
    tensor_name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @property
    def is_string(self) -> bool:
        return self.dtype.kind in "OS"

    def describe(self) -> dict[str, Any]:
        """As in `Adapter.signatures`."""
        return {"dtype": dtype_name(self.dtype), "shape": None if self.shape is None else list(self.shape)}

    def zeros(self) -> Array:
        """The smallest tensor of this spec: zeros, false or empty text; 1 wherever any size will do."""
        shape = tuple(dim or 1 for dim in self.shape or ())
        return np.full(shape, b"", dtype=object) if self.is_string else np.zeros(shape, dtype=self.dtype)


def to_tensor(spec: TensorSpec, values: list[Any]) -> Array:
    """The tensor with `values` as its rows.

    Raises:
        PredictionError: naming the first instance that does not fit, what was expected and what came.
    """
    array = _strings(spec, values) if spec.is_string else _numbers(spec, values)
    if spec.shape is not None and not _fits(array.shape, spec.shape):
        if _fits(array.shape[1:], spec.shape[1:]):
            raise PredictionError(
                f"Invalid inputs: the model takes exactly {spec.shape[0]} instances at a time, got {len(array)}."
            )
        raise PredictionError(
            f"Invalid inputs: the value of input {spec.alias} in instance 0 has the shape "
            f"{shape_text(array.shape[1:])}, expected {shape_text(spec.shape[1:])}."
        )
    return array


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    return all(want is None or got == want for got, want in zip(shape, expected, strict=True))


def _numbers(spec: TensorSpec, values: list[Any]) -> Array:
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        raise _wrong(spec, values) from None
    kind = array.dtype.kind
    if kind == "O" and spec.dtype.kind in "fV":
        array = _null_as_nan(spec, values, array)
    elif kind not in _TAKES.get(spec.dtype.kind, ""):
        raise _wrong(spec, values)
    if array.dtype == spec.dtype:
        return array
    with np.errstate(over="ignore"):  # 1e300 as float32 is infinity, as in TensorFlow
        converted = array.astype(spec.dtype)
    if spec.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise PredictionError(
            f"Error processing input: input {spec.alias} holds a number out of the range of {spec.dtype.name}."
        )
    return converted


def _null_as_nan(spec: TensorSpec, values: list[Any], array: Array) -> Array:
    if not all(cell is None or type(cell) in (float, int) for cell in array.flat):
        raise _wrong(spec, values)
    return array.astype(np.float64)


def _strings(spec: TensorSpec, values: list[Any]) -> Array:
    encoded = [_encoded(spec, value, index) for index, value in enumerate(values)]
    try:
        array = np.array(encoded, dtype=object)
    except ValueError:
        raise _wrong(spec, values) from None
    if any(type(cell) is not bytes for cell in array.flat):
        raise _wrong(spec, values)  # lists of different lengths
    return array


def _encoded(spec: TensorSpec, value: Any, index: int) -> Any:
    if type(value) is str:
        return value.encode()
    if type(value) is list:
        return [_encoded(spec, item, index) for item in value]
    if type(value) is dict and len(value) == 1:
        value = decode_b64(value)
    if type(value) is bytes:
        return value
    raise _mismatch(spec, value, index)


def _wrong(spec: TensorSpec, values: list[Any]) -> PredictionError:
    """Say what is wrong with `values`, which no tensor of this spec can hold: a leaf's type, or ragged lists."""
    values = [value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value for value in values]
    first_shape: tuple[int, ...] | None = None
    for index, value in enumerate(values):
        leaf = _first_misfit(spec, value)
        if leaf is not _NONE:
            return _mismatch(spec, leaf, index)
        try:
            shape = np.shape(np.array(value, dtype=object if spec.is_string else None))
        except (ValueError, OverflowError):
            shape = None
        if shape is None or (spec.is_string and any(type(c) is list for c in np.array(value, dtype=object).flat)):
            return PredictionError(
                f"Error processing input: the lists of input {spec.alias} in instance {index} differ in length; "
                f"expected the shape {shape_text(spec.shape[1:] if spec.shape else None)}."
            )
        if first_shape is not None and shape != first_shape:
            return PredictionError(
                f"Error processing input: the value of input {spec.alias} in instance {index} has the shape "
                f"{shape_text(shape)}, but {shape_text(first_shape)} in instance 0."
            )
        first_shape = shape
    return PredictionError(
        f"Error processing input: the values of input {spec.alias} are no {dtype_name(spec.dtype)}."
    )


def _mismatch(spec: TensorSpec, value: Any, index: int) -> PredictionError:
    return PredictionError(
        f"Error processing input: Expected {dtype_name(spec.dtype)}, got {value!r} of type "
        f"'{type(value).__name__}' instead. (Input {spec.alias} of instance {index}; "
        f"expected the shape {shape_text(spec.shape[1:] if spec.shape else None)}.)"
    )


_NONE = object()


def _first_misfit(spec: TensorSpec, value: Any) -> Any:
    """The first leaf that the spec does not take, or `_NONE`."""
    if type(value) is list:
        for item in value:
            leaf = _first_misfit(spec, item)
            if leaf is not _NONE:
                return leaf
        return _NONE
    if spec.is_string:
        fits = type(value) in (str, bytes) or (type(value) is dict and len(value) == 1)
    elif spec.dtype.kind == "b":
        fits = type(value) is bool
    elif spec.dtype.kind in "iu":
        fits = type(value) is int
    else:
        fits = type(value) in (int, float) or value is None
    return _NONE if fits else value
