"""Warm-up requests that come with a SavedModel, as TensorFlow Serving has them.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages. Their few fields that matter
are read here without TensorFlow and without its protocol buffers; each predict request is run once before the version
is ready. Called by `app`.

    PredictionLog 6 predict_log → PredictLog 1 request → PredictRequest
        1 model_spec → 3 signature_name
        2 inputs (map) → 1 key, 2 value → TensorProto
            1 dtype, 2 tensor_shape → 2 dim → 1 size; 4 tensor_content, or 5 float_val, 6 double_val, 7 int_val,
            8 string_val, 10 int64_val, 11 bool_val, 16 uint32_val, 17 uint64_val (a last value stands for the rest)

(tensorflow_serving/apis/prediction_log.proto, predict.proto, model.proto; tensorflow/core/framework/tensor.proto)
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.signatures import SignatureAdapter
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError, describe

_MOST_REQUESTS = 1000
"""As TensorFlow Serving bounds them."""
_LONGEST_S = 60.0

_DTYPES = {
    1: "f4",
    2: "f8",
    3: "i4",
    4: "u1",
    5: "i2",
    6: "i1",
    7: "O",
    9: "i8",
    10: "?",
    17: "u2",
    22: "u4",
    23: "u8",
}
_FIXED_VALUES = {5: "<f4", 6: "<f8"}
_VARINT_VALUES = (7, 10, 11, 16, 17)
_STRING_VALUES = 8


class BadWarmUp(Exception):
    """The file holds something else; the text says what."""


@dataclass(frozen=True)
class WarmUpRequest:
    """One request: the signature's name ("" for the default) and the arrays by input."""

    signature_name: str
    inputs: dict[str, Array]


def warm_up(adapter: SignatureAdapter, path: Path) -> tuple[int, list[str]]:
    """Run the requests; how many went well, and what is to be told of the others."""
    n_run, told = 0, []
    give_up_s = time.monotonic() + _LONGEST_S
    try:
        for index, request in enumerate(read_requests(path)):
            if index == _MOST_REQUESTS or time.monotonic() > give_up_s:
                told.append(f"warm-up: only the first {index} requests were run.")
                break
            try:
                _run(adapter, request)
                n_run += 1
            except PredictionError as error:
                told.append(f"warm-up request {index} failed: {error.detail}")
    except (BadWarmUp, OSError) as error:
        told.append(f"warm-up: {path.name} can't be read: {describe(error)}")
    return n_run, told


def _run(adapter: SignatureAdapter, request: WarmUpRequest) -> None:
    name = adapter.signature_name(request.signature_name)
    wanted = [spec.alias for spec in adapter.inputs(name)]
    if request.inputs.keys() != set(wanted):
        raise PredictionError(f"it has the inputs {sorted(request.inputs)}, the signature {name} takes {wanted}")
    arrays = tuple(request.inputs[alias] for alias in wanted)
    adapter.run(Call(name, arrays, len(arrays[0]) if arrays[0].ndim else 1, None))


def read_requests(path: Path) -> Iterator[WarmUpRequest]:
    """The predict requests of a file, one by one.

    Raises:
        BadWarmUp: it is no TFRecord file of such messages.
    """
    with path.open("rb") as file:
        while head := file.read(12):
            if len(head) < 12:
                raise BadWarmUp("it breaks off")
            size = struct.unpack_from("<Q", head)[0]
            record = file.read(min(size, 1 << 28))
            if len(record) < size or len(file.read(4)) < 4:
                raise BadWarmUp("it breaks off")
            yield from _requests_of(record)


def _requests_of(record: bytes) -> Iterator[WarmUpRequest]:
    try:
        for number, predict_log in _fields(record):
            if number != 6:
                continue
            for inner, request in _fields(_bytes(predict_log)):
                if inner == 1:
                    yield _predict_request(_bytes(request))
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise BadWarmUp(f"no PredictionLog: {describe(error)}") from error


def _predict_request(data: bytes) -> WarmUpRequest:
    signature, inputs = "", {}
    for number, value in _fields(data):
        if number == 1:
            signature = next((_bytes(v).decode() for n, v in _fields(_bytes(value)) if n == 3), "")
        elif number == 2:
            entry = dict(_fields(_bytes(value)))
            inputs[_bytes(entry[1]).decode()] = _tensor(_bytes(entry[2]))
    return WarmUpRequest(signature, inputs)


def _tensor(data: bytes) -> Array:
    dtype, content = 0, b""
    shape: tuple[int, ...] = ()
    values: list[object] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number == 2:
            dims = [list(_fields(_bytes(v))) for n, v in _fields(_bytes(value)) if n == 2]
            shape = tuple(next((int(v) for n, v in dim if n == 1 and isinstance(v, int)), 0) for dim in dims)
        elif number == 4:
            content = _bytes(value)
        elif number in _FIXED_VALUES:
            values += np.frombuffer(_bytes(value), _FIXED_VALUES[number]).tolist()
        elif number in _VARINT_VALUES:
            values += [value] if isinstance(value, int) else list(_varints(_bytes(value)))
        elif number == _STRING_VALUES:
            values.append(_bytes(value))
    if dtype not in _DTYPES:
        raise BadWarmUp(f"a tensor of the type {dtype}, which is not supported here")
    kind = np.dtype(_DTYPES[dtype])
    if content:
        return np.frombuffer(content, kind).reshape(shape).copy()
    if kind.kind == "i":  # negative numbers are written as if they were of 64 bits without a sign
        values = [v - (1 << 64) if isinstance(v, int) and v >= 1 << 63 else v for v in values]
    n_cells = math.prod(shape)
    if n_cells > 1 << 26 or (n_cells and not values):
        raise BadWarmUp("a tensor without values")
    values += values[-1:] * (n_cells - len(values))
    array = np.empty(n_cells, dtype=kind)
    array[:] = values
    return array.reshape(shape)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, which is bytes for all that is no varint."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field {number} has the kind {kind}")
        if position + size > len(data):
            raise ValueError("it breaks off")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number that is too long")


def _varints(data: bytes) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value
