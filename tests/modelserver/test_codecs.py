"""JSON in and out: strict, without NaN, with base64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.modelserver import codecs
from enginehouse.modelserver.errors import MalformedRequest, PredictionError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_both_encoders_mean_the_same(value: Any) -> None:
    slow, quick = codecs.dumps_slowly(value), codecs.dumps(value)
    assert codecs.loads_slowly(slow) == codecs.loads(quick) == codecs.loads(slow)
    assert b"NaN" not in slow.replace(b'"', b"") or "NaN" in str(value)


@pytest.mark.parametrize("loads", [codecs.loads, codecs.loads_slowly])
@pytest.mark.parametrize("text", [b"[NaN]", b"[Infinity]", b"[-Infinity]", b"", b"{", b"\xff"])
def test_what_is_not_json_is_refused(loads: Any, text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


@pytest.mark.parametrize("dumps", [codecs.dumps, codecs.dumps_slowly])
def test_nan_and_infinity_become_null(dumps: Any) -> None:
    assert dumps({"a": [math.nan, math.inf, -math.inf, 1.5]}) == b'{"a":[null,null,null,1.5]}'


@pytest.mark.parametrize("body", [b"[]", b"3", b"{}", b'{"instances": 3}', b'{"instances": null}', b"nonsense"])
def test_a_body_needs_instances(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        codecs.parse_request(body)


def test_deep_nesting_is_refused_not_fatal() -> None:
    with pytest.raises(MalformedRequest):
        codecs.parse_request(b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_b64_is_decoded_at_any_depth() -> None:
    assert codecs.decode_b64([{"b64": "AAE="}, {"x": [{"b64": ""}]}, {"b64": "AA==", "y": 1}]) == [
        b"\x00\x01",
        {"x": [b""]},
        {"b64": "AA==", "y": 1},
    ]


@pytest.mark.parametrize("value", ["!", "A", 3, None])
def test_bad_base64_is_the_callers_mistake(value: Any) -> None:
    with pytest.raises(PredictionError, match=r"b64|base64"):
        codecs.decode_b64({"b64": value})


def test_bytes_outputs() -> None:
    assert codecs.encode_bytes([[b"a"], [b"\xff"]], alias="image_bytes") == [[{"b64": "YQ=="}], [{"b64": "/w=="}]]
    assert codecs.encode_bytes(["é".encode()], alias="label") == ["é"]
    with pytest.raises(PredictionError, match="_bytes"):
        codecs.encode_bytes([b"\xff"], alias="label")


@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (np.array([1, 2], dtype=np.int8), [1, 2]),
        (np.array([[True], [False]]), [[True], [False]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", np.float64(0.5), None], dtype=object), ["a", 0.5, None]),
        (np.array(["2026-01-31"], dtype="datetime64[D]"), ["2026-01-31"]),
        (np.array([b"\x00"], dtype="S1"), [{"b64": ""}]),
    ],
)
def test_rows_of_any_dtype_are_json(array: Any, rows: list[Any]) -> None:
    assert codecs.rows_of(array) == rows
    codecs.dumps(rows)
