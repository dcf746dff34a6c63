"""Warm-up requests read without TensorFlow; what TensorFlow itself wrote is read in `test_old_runtimes`."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver.warmup import BadWarmUp, read_requests


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def number(number: int, value: int) -> bytes:
    text = bytearray([number << 3])
    while value > 127:
        text.append(value & 127 | 128)
        value >>= 7
    return bytes(text) + bytes([value])


def tensor(dtype: int, shape: list[int], values: bytes) -> bytes:
    return number(1, dtype) + field(2, b"".join(field(2, number(1, size)) for size in shape)) + values


def written(path: Path, *tensors: bytes, signature: bytes = b"") -> Path:
    inputs = b"".join(field(2, field(1, b"x%d" % i) + field(2, each)) for i, each in enumerate(tensors))
    record = field(6, field(1, field(1, field(3, signature)) + inputs))
    path.write_bytes(struct.pack("<Q", len(record)) + b"crc1" + record + b"crc2")
    return path


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (tensor(1, [2], field(5, struct.pack("<2f", 1.5, -2))), np.array([1.5, -2], np.float32)),
        (tensor(2, [1, 2], field(4, struct.pack("<2d", 1, 2))), np.array([[1.0, 2.0]])),
        (tensor(3, [3], number(7, (1 << 64) - 5)), np.array([-5, -5, -5], np.int32)),
        (tensor(9, [2], field(10, bytes([1, 2]))), np.array([1, 2], np.int64)),
        (tensor(10, [1], number(11, 1)), np.array([True])),
        (tensor(7, [2], field(8, b"a") + field(8, b"")), np.array([b"a", b""], object)),
        (tensor(1, [0, 4], b""), np.zeros((0, 4), np.float32)),
    ],
)
def test_tensors(tmp_path: Path, proto: bytes, expected: np.ndarray) -> None:
    [request] = read_requests(written(tmp_path / "file", proto, signature=b"s"))
    assert request.signature_name == "s"
    [array] = request.inputs.values()
    assert array.dtype == expected.dtype and array.shape == expected.shape
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "proto", [tensor(14, [1], b""), tensor(1, [5], b""), tensor(1, [2], field(4, b"123")), b"\x08"]
)
def test_tensors_that_cannot_be(tmp_path: Path, proto: bytes) -> None:
    with pytest.raises(BadWarmUp):
        list(read_requests(written(tmp_path / "file", proto)))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for content in (data, struct.pack("<Q", len(data)) + b"crc1" + data + b"crc2"):
        path.write_bytes(content)
        try:
            list(read_requests(path))
        except BadWarmUp:
            pass
