"""Event files made by hand, byte by byte: for what TensorFlow itself writes only when it dies."""

from __future__ import annotations

import struct

import google_crc32c


def field(number: int, value: int | float | bytes) -> bytes:
    """A protocol buffer's field: a varint, a double or bytes, by the type of `value`."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def record(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def version_record(time_s: float = 1.0) -> bytes:
    """What an event file begins with."""
    return record(field(1, time_s) + field(3, b"brain.Event:2"))


def scalar_record(tag: str, step: int, value: float, time_s: float = 1.0) -> bytes:
    """A scalar as TensorFlow 1.x writes it."""
    simple_value = varint(2 << 3 | 5) + struct.pack("<f", value)
    return value_record(tag, simple_value, step=step, time_s=time_s)


def tensor_record(tag: str, tensor: bytes, *, step: int = 1, plugin: bytes = b"scalars") -> bytes:
    """A `TensorProto` as TensorFlow 2.x writes it."""
    metadata = field(9, field(1, field(1, plugin))) if plugin else b""
    return value_record(tag, metadata + field(8, tensor), step=step)


def value_record(tag: str, value: bytes, *, step: int = 1, time_s: float = 1.0) -> bytes:
    summary = field(1, field(1, tag.encode()) + value)
    return record(field(1, time_s) + field(2, step) + field(5, summary))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
