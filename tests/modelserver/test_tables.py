"""Instances as a table, for scikit-learn and XGBoost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from enginehouse.modelserver.adapters.tables import prepare_table, to_array
from enginehouse.modelserver.errors import PredictionError


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])),
        ([[1, 2.5]], np.array([[1, 2.5]])),
        ([[1, None], [2.5, 3]], np.array([[1, np.nan], [2.5, 3]])),
        ([[True], [False]], np.array([[True], [False]])),
        (["a", "b"], np.array(["a", "b"], dtype=object)),
        ([["a", 1], ["b", None]], np.array([["a", 1], ["b", None]], dtype=object)),
        ([{"b64": "AA=="}], np.array([b"\x00"], dtype=object)),
        ([1.5, 2], np.array([1.5, 2])),
    ],
)
def test_instances_become_an_array(instances: list[Any], expected: Any) -> None:
    array = to_array(instances)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


def test_numbers_beside_text_stay_numbers() -> None:
    assert to_array([["a", 1.0]]).tolist() == [["a", 1.0]]


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([[1, 2], [1, 2, 3]], "instance 1 has the shape (3,), but instance 0 has (2,)"),
        ([[1, 2], 3], "instance 1 has the shape (), but instance 0 has (2,)"),
        ([[[1], [2, 3]]], "instance 0 differ in length"),
    ],
)
def test_ragged_instances_are_named(instances: list[Any], words: str) -> None:
    with pytest.raises(PredictionError) as caught:
        to_array(instances)
    assert words in caught.value.detail


def test_objects_are_put_in_the_order_of_the_features() -> None:
    call = prepare_table({"instances": [{"b": 2, "a": 1}, {"a": 3, "b": 4}]}, ["a", "b"])
    assert call.arrays[0].tolist() == [[1, 2], [3, 4]]
    assert call.n_rows == 2


@pytest.mark.parametrize(
    ("instances", "names", "words"),
    [
        ([{"a": 1}], None, "without feature names"),
        ([{"a": 1, "b": 2}, {"a": 1}], ["a", "b"], "Input b was missing in at least one input instance."),
        ([{"a": 1, "c": 2}], ["a", "b"], "Unexpected tensor name: c"),
        ([{"a": 1, "b": 2}, [1, 2]], ["a", "b"], "instance 1 must be an object"),
    ],
)
def test_wrong_objects_are_named(instances: list[Any], names: list[str] | None, words: str) -> None:
    with pytest.raises(PredictionError) as caught:
        prepare_table({"instances": instances}, names)
    assert words in caught.value.detail


def test_only_equal_dtypes_and_shapes_share_a_key() -> None:
    def key(*instances: Any) -> Any:
        return prepare_table({"instances": list(instances)}, None).merge_key

    assert key([1, 2]) == key([3, 4], [5, 6])
    assert len({key([1, 2]), key([1.0, 2]), key([1, 2, 3]), key(["a", "b"]), key([True, False]), key(1)}) == 6
