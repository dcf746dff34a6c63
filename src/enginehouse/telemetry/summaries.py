"""Scalars out of TensorFlow's event files, read from an offset, so that a file can be followed while it grows.

In comes an open event file and where to go on; out come its scalars and where to go on the next time. Called by
`tuning.metrics_sources`. A reader of its own, since TensorBoard's takes a second to import, brings protobuf and
numpy along, and knows neither our buckets nor where it stopped in a file.

A file is a row of records: length (uint64), masked crc32c of it, the data, masked crc32c of the data, little-endian
(tensorflow/core/lib/io/record_writer.h). The data is a message `Event` (tensorflow/core/util/event.proto); field
numbers below are those of event.proto, summary.proto and tensor.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import google_crc32c

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_MAX_EVENT_BYTES = 64 * 2**20
"""Longer records hold graphs, pictures or sounds; they are passed over unread."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SCALARS_PLUGIN = b"scalars"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value of one tag, NaN and infinity among them; `time_s` is the writer's, in seconds since the epoch."""

    tag: str
    step: int
    value: float
    time_s: float


@dataclass(frozen=True)
class Reading:
    """What a part of a file held."""

    scalars: list[Scalar]
    offset: int
    """Where the first record begins that is not whole yet, or not readable; go on from here."""
    passed_over: int
    """How many records were unreadable."""
    stuck: bool
    """Whether what lies at `offset` is no record: damage, or bytes that are still being written."""


def read_scalars(file: BinaryIO, offset: int, size_bytes: int) -> Reading:
    """The scalars of all whole records between `offset` and `size_bytes`.

    Args:
        file: an event file, seekable.
        offset: 0, or what the last reading returned.
        size_bytes: the file's size, or any smaller point to stop at.
    """
    scalars: list[Scalar] = []
    passed_over, stuck = 0, False
    file.seek(offset)
    while offset + _HEADER.size <= size_bytes:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            break
        length, length_crc = _HEADER.unpack(header)
        if _masked_crc(header[:8]) != length_crc:
            stuck = True
            break
        end = offset + _HEADER.size + length + _FOOTER.size
        if end > size_bytes:
            break
        if length > _MAX_EVENT_BYTES:
            file.seek(end)
        else:
            data = file.read(length + _FOOTER.size)
            if len(data) < length + _FOOTER.size:
                break
            event, data_crc = data[:length], _FOOTER.unpack_from(data, length)[0]
            try:
                if _masked_crc(event) != data_crc:
                    raise ValueError
                scalars += _scalars_of(event)
            except (ValueError, IndexError, struct.error):
                passed_over += 1
        offset = end
    return Reading(scalars, offset, passed_over, stuck)


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _scalars_of(event: bytes) -> Iterator[Scalar]:
    """The scalars of an `Event`: wall_time = 1, step = 2, summary = 5 with the values = 1."""
    time_s, step, summaries = 0.0, 0, []
    for number, kind, value in _fields(event):
        if number == 1 and kind == _FIXED64:
            time_s = _DOUBLE.unpack(value)[0]
        elif number == 2 and kind == _VARINT:
            step = _signed(value)
        elif number == 5 and kind == _BYTES:
            summaries.append(value)
    for summary in summaries:
        for number, kind, value in _fields(summary):
            if number == 1 and kind == _BYTES and (found := _scalar_of(value)) is not None:
                yield Scalar(found[0], step, found[1], time_s)


def _scalar_of(data: bytes) -> tuple[str, float] | None:
    """Tag and value of a `Summary.Value`: tag = 1, simple_value = 2, tensor = 8, metadata = 9; None for no scalar."""
    tag, found, plugin = b"", None, b""
    for number, kind, value in _fields(data):
        if number == 1 and kind == _BYTES:
            tag = value
        elif number == 2 and kind == _FIXED32:
            found = _FLOAT.unpack(value)[0]
        elif number == 8 and kind == _BYTES:
            found = _tensor_value(value)
        elif number == 9 and kind == _BYTES:
            plugin = _first(_first(value, 1), 1)  # metadata.plugin_data.plugin_name
    if found is None or plugin not in (b"", _SCALARS_PLUGIN):
        return None
    return tag.decode("utf-8", "replace"), found


def _first(message: bytes, wanted: int) -> bytes:
    """The bytes of a field of a message, empty if it is not set."""
    return next((value for number, kind, value in _fields(message) if number == wanted and kind == _BYTES), b"")


_CONTENT = {
    1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 10: "?", 17: "H", 19: "e", 22: "I", 23: "Q",
}  # fmt: skip
"""DataType → how `tensor_content` holds an element (struct), for all types that have one value per element."""
_BFLOAT16, _HALF = 14, 19
_VALUE_FIELDS = {5: ("f", 4), 6: ("d", 8)}
"""TensorProto's float_val and double_val; the other numbers come as varints in the fields below."""
_VARINT_FIELDS = {7, 10, 11, 13, 16, 17}


def _tensor_value(tensor: bytes) -> float | None:
    """The number in a `TensorProto` of one element; None for text and for tensors of more."""
    data_type, elements, content, values = 0, 1, b"", []
    for number, kind, value in _fields(tensor):
        if number == 1 and kind == _VARINT:
            data_type = value
        elif number == 2 and kind == _BYTES:
            for dim_number, dim_kind, dim in _fields(value):
                if dim_number == 2 and dim_kind == _BYTES:
                    sizes = [size for size_number, _, size in _fields(dim) if size_number == 1]
                    elements *= sizes[0] if sizes else 0
        elif number == 4 and kind == _BYTES:
            content = value
        elif number in _VALUE_FIELDS:
            code, width = _VALUE_FIELDS[number]
            if len(value) < width:
                return None
            values.append(struct.unpack_from("<" + code, value)[0])
        elif number in _VARINT_FIELDS:
            values.append(value if kind == _VARINT else _varint(value, 0)[0])
    if elements != 1 or (data_type not in _CONTENT and data_type != _BFLOAT16):
        return None
    if content:
        if data_type == _BFLOAT16:
            return _bfloat16(int.from_bytes(content[:2], "little"))
        return float(struct.unpack_from("<" + _CONTENT[data_type], content)[0])
    number = values[0] if values else 0
    if data_type == _BFLOAT16:
        return _bfloat16(number)
    if data_type == _HALF:
        return float(struct.unpack("<e", (number & 0xFFFF).to_bytes(2, "little"))[0])
    return float(_signed(number) if isinstance(number, int) and data_type != 23 else number)


def _bfloat16(bits: int) -> float:
    """A bfloat16 is the upper half of a float."""
    return float(_FLOAT.unpack(((bits & 0xFFFF) << 16).to_bytes(4, "little"))[0])


# --- the wire format of protocol buffers --------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field: an int for a varint, else bytes.

    Raises:
        ValueError, IndexError: it is no message.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield key >> 3, kind, value
            continue
        if kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > end:
            raise ValueError("a field is cut off")
        yield key >> 3, kind, message[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a varint has more than 64 bits")


def _signed(number: int) -> int:
    """An int64 from its 64 bits."""
    number &= 2**64 - 1
    return number - 2**64 if number >> 63 else number
