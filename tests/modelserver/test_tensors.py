"""JSON values to tensors: strict in types and shapes, exact in what it says is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from enginehouse.modelserver.adapters.tensors import TensorSpec, to_tensor
from enginehouse.modelserver.errors import PredictionError


def spec(dtype: Any, *shape: int | None) -> TensorSpec:
    return TensorSpec("x", "x:0", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("tensor", "values", "expected"),
    [
        (spec("f4", None), [1, 2.5], np.array([1, 2.5], "f4")),
        (spec("f4", None, 2), [[1, 2], [3, None]], np.array([[1, 2], [3, np.nan]], "f4")),
        (spec("f4", None), [1e300], np.array([np.inf], "f4")),
        (spec("f2", None, 1), [[1], [2]], np.array([[1], [2]], "f2")),
        (spec("i4", None, None), [[1, 2, 3]], np.array([[1, 2, 3]], "i4")),
        (spec("u1", None), [0, 255], np.array([0, 255], "u1")),
        (spec("i8", None), [2**53 + 1, -1], np.array([2**53 + 1, -1], "i8")),
        (spec("?", None), [True, False], np.array([True, False])),
        (spec("O", None), ["é", {"b64": "/w=="}], np.array(["é".encode(), b"\xff"], dtype=object)),
        (spec("O", None, 2), [["a", "b"], ["c", "d"]], np.array([[b"a", b"b"], [b"c", b"d"]], dtype=object)),
    ],
)
def test_values_become_the_tensor(tensor: TensorSpec, values: list[Any], expected: Any) -> None:
    array = to_tensor(tensor, values)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("tensor", "values", "words"),
    [
        (
            spec("f4", None),
            [1.0, "abc"],
            "Expected float32, got 'abc' of type 'str' instead. (Input x of instance 1;",
        ),
        (spec("f4", None), [1.0, True, "a"], "got True of type 'bool' instead. (Input x of instance 1"),
        (spec("f4", None, 4), [[1, 2, 3, 4], [1, 2, 3]], "instance 1 has the shape (3), but (4) in instance 0"),
        (spec("f4", None, 4), [[1, 2, 3]], "instance 0 has the shape (3), expected (4)"),
        (spec("f4", None, 4), [1, 2, 3, 4], "instance 0 has the shape (), expected (4)"),
        (spec("f4", None, 2), [[1, 2], {"y": 3}], "got {'y': 3} of type 'dict' instead. (Input x of instance 1"),
        (spec("f4", None, 2, 2), [[[1, 2], [3]]], "instance 0 differ in length; expected the shape (2, 2)"),
        (spec("i4", None), [1, 1.5], "Expected int32, got 1.5 of type 'float' instead. (Input x of instance 1"),
        (spec("i4", None), [1, None], "Expected int32, got None of type 'NoneType'"),
        (spec("i4", None), [2**31], "out of the range of int32"),
        (spec("u1", None), [-1], "out of the range of uint8"),
        (spec("i8", None), [2**80], "int64"),
        (spec("?", None), [1], "Expected bool, got 1 of type 'int' instead"),
        (spec("O", None), ["a", 1], "Expected string, got 1 of type 'int' instead. (Input x of instance 1"),
        (spec("O", None), [{"b65": "aa"}], "Expected string, got {'b65': 'aa'} of type 'dict'"),
        (spec("O", None, None), [["a"], ["b", "c"]], "instance 1 has the shape (2), but (1) in instance 0"),
        (spec("O", None, None, None), [[["a"], ["b", "c"]]], "instance 0 differ in length"),
        (spec("O", None), [{"b64": "?"}], "invalid base64"),
    ],
)
def test_misfits_are_named(tensor: TensorSpec, values: list[Any], words: str) -> None:
    with pytest.raises(PredictionError) as caught:
        to_tensor(tensor, values)
    assert words in caught.value.detail


def test_unknown_shapes_take_anything() -> None:
    assert to_tensor(TensorSpec("x", "x:0", np.dtype("f4"), None), [[[1]]]).shape == (1, 1, 1)


def test_zeros() -> None:
    assert spec("f4", None, 3, None).zeros().shape == (1, 3, 1)
    assert spec("O", None).zeros().tolist() == [b""]
