"""Scalars out of event files: whole, growing, torn, damaged, and of every type."""

import io
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.telemetry.summaries import Reading, Scalar, read_scalars
from enginehouse.testing.summaries import (
    field,
    record,
    scalar_record,
    tensor_record,
    value_record,
    varint,
    version_record,
)


def read(data: bytes, offset: int = 0) -> Reading:
    return read_scalars(io.BytesIO(data), offset, len(data))


def values(data: bytes) -> list[tuple[str, int, float]]:
    return [(scalar.tag, scalar.step, scalar.value) for scalar in read(data).scalars]


def test_scalars_of_tensorflow_1() -> None:
    data = version_record() + scalar_record("loss", 10, 0.5, 100.25) + scalar_record("é/acc", -1, math.inf, 101.0)
    assert read(data) == Reading(
        [Scalar("loss", 10, 0.5, 100.25), Scalar("é/acc", -1, math.inf, 101.0)], len(data), 0, False
    )
    assert math.isnan(values(scalar_record("loss", 1, math.nan))[0][2])


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        pytest.param(field(1, 1) + field(4, struct.pack("<f", 0.25)), 0.25, id="float"),
        pytest.param(field(1, 1) + field(5, struct.pack("<f", 0.25)), 0.25, id="float_val"),
        pytest.param(field(1, 2) + field(4, struct.pack("<d", 1e300)), 1e300, id="double"),
        pytest.param(field(1, 2) + field(6, struct.pack("<d", 1e300)), 1e300, id="double_val"),
        pytest.param(field(1, 3) + field(4, struct.pack("<i", -7)), -7.0, id="int32"),
        pytest.param(field(1, 3) + field(7, varint(-7)), -7.0, id="int_val"),
        pytest.param(field(1, 9) + field(10, -7), -7.0, id="int64_val, not packed"),
        pytest.param(field(1, 10) + field(11, b"\x01"), 1.0, id="bool"),
        pytest.param(field(1, 19) + field(13, varint(0x3800)), 0.5, id="half_val"),
        pytest.param(field(1, 19) + field(4, struct.pack("<e", 0.5)), 0.5, id="half"),
        pytest.param(field(1, 14) + field(13, varint(0x3F00)), 0.5, id="bfloat16 as half_val"),
        pytest.param(field(1, 14) + field(4, b"\x00\x3f"), 0.5, id="bfloat16"),
        pytest.param(field(1, 23) + field(17, varint(2**64 - 1)), float(2**64 - 1), id="uint64"),
        pytest.param(field(1, 1) + field(2, field(2, field(1, 1))) + field(4, struct.pack("<f", 3)), 3.0, id="[3.]"),
        pytest.param(field(1, 1), 0.0, id="zero is written as nothing"),
    ],
)
def test_scalars_of_tensorflow_2(tensor: bytes, value: float) -> None:
    assert values(tensor_record("t", tensor)) == [("t", 1, value)]
    assert values(tensor_record("t", tensor, plugin=b"")) == [("t", 1, value)]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(tensor_record("t", field(1, 7) + field(8, b"text")), id="text"),
        pytest.param(tensor_record("t", field(1, 1) + field(2, field(2, field(1, 2)))), id="two numbers"),
        pytest.param(tensor_record("t", field(1, 1) + field(2, field(2, b""))), id="no number"),
        pytest.param(tensor_record("t", field(1, 1), plugin=b"histograms"), id="a histogram"),
        pytest.param(value_record("t", field(4, b"picture")), id="a picture"),
        pytest.param(record(field(1, 1.0) + field(4, b"graph")), id="a graph"),
    ],
)
def test_what_is_no_scalar_is_passed_over(event: bytes) -> None:
    data = event + scalar_record("loss", 2, 1.0)
    assert values(data) == [("loss", 2, 1.0)]
    assert read(data).passed_over == 0


def test_a_file_that_grows_byte_by_byte_gives_each_scalar_once() -> None:
    data = version_record() + b"".join(scalar_record("loss", step, step / 2) for step in range(5))
    offset, steps = 0, []
    for size in range(len(data) + 1):
        reading = read(data[:size], offset)
        assert not reading.stuck
        offset, steps = reading.offset, steps + [scalar.step for scalar in reading.scalars]
    assert (offset, steps) == (len(data), list(range(5)))


def test_a_tail_of_zeros_is_waited_for() -> None:
    first, second = scalar_record("loss", 1, 1.0), scalar_record("loss", 2, 2.0)
    reading = read(first + bytes(len(second)))
    assert (len(reading.scalars), reading.offset, reading.stuck) == (1, len(first), True)
    reading = read(first + second, reading.offset)
    assert (values(first + second)[1], reading.stuck) == (("loss", 2, 2.0), False)


def test_a_damaged_record_is_passed_over() -> None:
    bad = bytearray(scalar_record("loss", 1, 1.0))
    bad[-6] ^= 1
    reading = read(bytes(bad) + scalar_record("loss", 2, 2.0))
    assert ([scalar.step for scalar in reading.scalars], reading.passed_over) == ([2], 1)


@given(st.binary(max_size=300))
def test_any_event_is_read_or_passed_over(event: bytes) -> None:
    data = record(event) + scalar_record("loss", 7, 1.0)
    assert read(data).scalars[-1] == Scalar("loss", 7, 1.0, 1.0)
    assert read(data).offset == len(data)


@given(st.binary(max_size=300))
def test_any_file_can_be_looked_at(data: bytes) -> None:
    assert 0 <= read(data).offset <= len(data)
