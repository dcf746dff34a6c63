"""Tensors of both protocols, and those that `serving.open_inference` knows: `{name, datatype, shape, data}`.

There the data are flat. On the wire the values are raw bytes, little endian, or lie in the field of their type; bytes
of numbers stay what they are (`raw`), since a model server takes them so. Strings become text where they are UTF-8,
else `{"b64": …}`, which says the same to a model. All are pure functions.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from enginehouse.api.rpc.messages import Message, message
from enginehouse.core.errors import InvalidArgument
from enginehouse.serving.open_inference import FORMATS

_MOST_VALUES = 1 << 22
"""A request of a few bytes can't ask for more of the same."""
_SIZE = struct.Struct("<I")

_TensorProto = message("tensorflow.TensorProto")


@dataclass(frozen=True)
class _Type:
    """One type of values.

    Args:
        number: in TensorFlow's DataType.
        values: the field of TensorProto.
        contents: the field of InferTensorContents; "" where there is none.
    """

    number: int
    values: str
    contents: str


_TYPES = {
    "BOOL": _Type(10, "bool_val", "bool_contents"),
    "INT8": _Type(6, "int_val", "int_contents"),
    "INT16": _Type(5, "int_val", "int_contents"),
    "INT32": _Type(3, "int_val", "int_contents"),
    "INT64": _Type(9, "int64_val", "int64_contents"),
    "UINT8": _Type(4, "int_val", "uint_contents"),
    "UINT16": _Type(17, "int_val", "uint_contents"),
    "UINT32": _Type(22, "uint32_val", "uint_contents"),
    "UINT64": _Type(23, "uint64_val", "uint64_contents"),
    "FP16": _Type(19, "half_val", ""),
    "FP32": _Type(1, "float_val", "fp32_contents"),
    "FP64": _Type(2, "double_val", "fp64_contents"),
    "BYTES": _Type(7, "string_val", "bytes_contents"),
}
_DATATYPES = {kind.number: datatype for datatype, kind in _TYPES.items()}


def tensorflow_type(datatype: str) -> int:
    """TensorFlow's DataType for one of the protocol's."""
    return _TYPES[datatype].number


def from_tensor_proto(name: str, proto: Message) -> dict[str, Any]:
    """A tensorflow.TensorProto as a tensor.

    Raises:
        InvalidArgument: naming the input, for a type that is not taken or values that don't fit.
    """
    datatype = _DATATYPES.get(proto.dtype)
    if datatype is None:
        raise InvalidArgument(f"Tensors of the DataType {proto.dtype} are not taken.", field=f"inputs.{name}.dtype")
    kind = _TYPES[datatype]
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_content:
        values = _of_bytes(proto.tensor_content, datatype, f"inputs.{name}.tensor_content")
    else:
        data = _read(list(getattr(proto, kind.values)), datatype)
        n_values = math.prod(shape)
        if len(data) < n_values <= _MOST_VALUES:  # a last value stands for the rest, no value for zeros
            data += (data[-1:] or ["" if datatype == "BYTES" else 0]) * (n_values - len(data))
        values = {"data": data}
    return {"name": name, "datatype": datatype, "shape": shape, **values}


def to_tensor_proto(tensor: dict[str, Any]) -> Message:
    """A tensor as a tensorflow.TensorProto, with its values in the field of their type."""
    kind = _TYPES[tensor["datatype"]]
    proto = _TensorProto(dtype=kind.number)
    for size in tensor["shape"]:
        proto.tensor_shape.dim.add(size=size)
    data = _plain(tensor)
    if tensor["datatype"] == "FP16":
        data = [int.from_bytes(struct.pack("<e", value), "little") for value in data]
    getattr(proto, kind.values).extend(data)
    return proto


def from_infer_tensor(tensor: Message, raw: bytes | None, field: str) -> dict[str, Any]:
    """An InferInputTensor as a tensor.

    Args:
        raw: its values, if they came as bytes.
        field: for errors.

    Raises:
        InvalidArgument: a type that is not taken, or values that don't fit.
    """
    datatype = str(tensor.datatype)
    if datatype not in _TYPES:
        raise InvalidArgument(f"{datatype!r} is not one of {', '.join(_TYPES)}.", field=f"{field}.datatype")
    if raw is not None:
        values = _of_bytes(raw, datatype, "raw_input_contents")
    elif contents := _TYPES[datatype].contents:
        values = {"data": _read(list(getattr(tensor.contents, contents)), datatype)}
    else:
        raise InvalidArgument(
            f"{datatype} has no contents; send it as raw_input_contents.", field=f"{field}.contents"
        )
    return {"name": tensor.name, "datatype": datatype, "shape": list(tensor.shape), **values}


def fill_contents(tensor: dict[str, Any], contents: Message) -> None:
    """Write the values of a tensor into InferTensorContents."""
    getattr(contents, _TYPES[tensor["datatype"]].contents).extend(_plain(tensor))


def has_contents(tensor: dict[str, Any]) -> bool:
    """Whether InferTensorContents has a field for the type."""
    return bool(_TYPES[tensor["datatype"]].contents)


def to_raw(tensor: dict[str, Any]) -> bytes:
    """The values of a tensor as bytes; of strings, each after its size."""
    data, kind = _plain(tensor), FORMATS.get(tensor["datatype"])
    if kind is not None:
        return struct.pack(f"<{len(data)}{kind}", *data)
    return b"".join(_SIZE.pack(len(each)) + each for each in data)


def _plain(tensor: dict[str, Any]) -> list[Any]:
    """The values as protocol buffers and `struct` take them: bytes for text, NaN for None."""
    if tensor["datatype"] == "BYTES":
        return [_bytes(each) for each in tensor["data"]]
    if tensor["datatype"].startswith("FP"):
        return [math.nan if each is None else each for each in tensor["data"]]
    return list(tensor["data"])


def _bytes(value: Any) -> bytes:
    match value:
        case str():
            return value.encode()
        case {"b64": text}:
            return base64.b64decode(text)
        case _:  # whatever else a routine of the user's gave
            return orjson.dumps(value)


def _read(values: list[Any], datatype: str) -> list[Any]:
    """What lies in the fields of messages, as JSON's values."""
    if datatype == "BYTES":
        return [to_text(each) for each in values]
    if datatype == "FP16":  # bits
        return [struct.unpack("<e", struct.pack("<H", each & 0xFFFF))[0] for each in values]
    return values


def _of_bytes(raw: bytes, datatype: str, field: str) -> dict[str, Any]:
    if datatype == "BYTES":
        return {"data": [to_text(each) for each in _strings(raw, field)]}
    if len(raw) % struct.calcsize(FORMATS[datatype]):
        raise InvalidArgument(f"{len(raw)} bytes hold no whole number of {datatype} values.", field=field)
    return {"raw": raw}


def _strings(raw: bytes, field: str) -> Iterator[bytes]:
    position = 0
    while position < len(raw):
        start = position + _SIZE.size
        position = start + (_SIZE.unpack_from(raw, position)[0] if start <= len(raw) else 0)
        if position > len(raw) or start > len(raw):
            raise InvalidArgument("It breaks off: each string comes after its size of 4 bytes.", field=field)
        yield raw[start:position]


def to_text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}


def column(tensors: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """One list of values per row of the tensor of that name."""
    tensor = next(each for each in tensors if each["name"] == name)
    data, n_rows = _plain(tensor), tensor["shape"][0]
    width = len(data) // n_rows if n_rows else 0
    return [data[row * width : (row + 1) * width] for row in range(n_rows)]
