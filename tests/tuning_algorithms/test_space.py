"""The unit cube and the space: whatever goes one way comes back the same."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.schemas.optimizer import IntegerValueSpec, StudyConfig, StudyParameterSpec
from enginehouse.schemas.wire import Int64
from enginehouse.testing.designers import MIXED, check_point, make_config, spaces
from enginehouse.tuning.algorithms.gaussian_process.cube import Cube
from enginehouse.tuning.algorithms.grid_search import grid
from enginehouse.tuning.space import INACTIVE, Space

SHARES = st.floats(0.0, 1.0)


def all_spaces() -> st.SearchStrategy[StudyConfig]:
    return spaces()


@settings(max_examples=50, deadline=None)
@given(all_spaces(), st.data())
def test_any_coordinates_are_a_point_and_its_own_coordinates_lead_back(
    config: StudyConfig, data: st.DataObject
) -> None:
    space = Space(config.parameters)
    shares = data.draw(st.lists(SHARES, min_size=len(space.axes), max_size=len(space.axes)))
    for point in (space.from_unit(shares), space.at_shares(shares), space.draw(Random(data.draw(st.integers())))):
        check_point(config.parameters, point)
        unit = space.to_unit(point)
        assert all(0.0 <= u <= 1.0 or u == INACTIVE for u in unit)
        again = space.from_unit(unit)
        for axis in space.axes:
            name = axis.spec.parameter
            if axis.spec.type == "DOUBLE" and name in point:
                low, high = axis.spec.double_value_spec.min_value, axis.spec.double_value_spec.max_value  # type: ignore[union-attr]
                # Near the top of a wide range u is too coarse for more, and the other way round for reverse log.
                assert again[name] == pytest.approx(point[name], rel=1e-6, abs=1e-6 * (high - low))
            else:
                assert again.get(name) == point.get(name)
        assert space.point(space.parameters(point)) == point


@settings(max_examples=50, deadline=None)
@given(all_spaces(), st.integers(0, 2**32))
def test_many_points_at_once_are_rounded_as_one(config: StudyConfig, seed: int) -> None:
    space = Space(config.parameters)
    shares = np.random.default_rng(seed).random((5, len(space.axes)))
    cube = Cube(space)
    for row, snapped in zip(shares, cube.snap(shares), strict=True):
        expected = space.to_unit(space.from_unit([float(u) for u in row]))
        for axis, u, wanted in zip(space.axes, snapped, expected, strict=True):
            if axis.levels is not None:
                assert u == pytest.approx(wanted, abs=1e-9)
    active = cube.active(cube.snap(shares))
    for row, there in zip(cube.snap(shares), active, strict=True):
        point = space.from_unit([float(u) for u in row])
        assert there.tolist() == [axis.spec.parameter in point for axis in space.axes]


@pytest.mark.parametrize(
    ("scale", "half"),
    [("UNIT_LINEAR_SCALE", 50.5), ("UNIT_LOG_SCALE", 10.0), ("UNIT_REVERSE_LOG_SCALE", 91.0)],
)
def test_the_middle_of_a_scale(scale: str, half: float) -> None:
    spec = {
        "parameter": "x",
        "type": "DOUBLE",
        "doubleValueSpec": {"minValue": 1, "maxValue": 100},
        "scaleType": scale,
    }
    (axis,) = Space(make_config(parameters=[spec]).parameters).axes
    assert axis.from_unit(0.5) == pytest.approx(half)
    assert axis.to_unit(half) == pytest.approx(0.5)
    assert (axis.from_unit(0.0), axis.from_unit(1.0)) == pytest.approx((1.0, 100.0))


def test_values_in_a_list_lie_evenly_or_by_their_scale() -> None:
    spec = {"parameter": "x", "type": "DISCRETE", "discreteValueSpec": {"values": [1, 10, 1000]}}
    (axis,) = Space(make_config(parameters=[spec]).parameters).axes
    assert axis.levels == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    (axis,) = Space(make_config(parameters=[{**spec, "scaleType": "UNIT_LOG_SCALE"}]).parameters).axes
    assert axis.levels == pytest.approx([0, 1 / 3, 1])


def test_a_parameter_that_is_not_there_has_the_coordinate_of_none() -> None:
    space = Space(MIXED.parameters)
    point = {"rate": 0.01, "layers": 2, "batch": 32.0, "kind": "plain"}
    assert space.to_unit(point)[-1] == INACTIVE
    assert space.from_unit([0.0, 0.0, 0.0, 0.9, 0.0])["mass"] == pytest.approx(0.5)


@given(spaces(finite=True))
@settings(max_examples=30, deadline=None)
def test_the_size_of_a_space_is_that_of_its_grid(config: StudyConfig) -> None:
    assert Space(config.parameters).size() == sum(1 for _ in grid(config.parameters))
    assert math.isinf(Space(MIXED.parameters).size())


def test_a_whole_number_of_a_huge_range_is_found_at_once() -> None:
    spec = StudyParameterSpec(
        parameter="seed",
        type="INTEGER",
        integer_value_spec=IntegerValueSpec(min_value=Int64(0), max_value=Int64(10**15)),
    )
    space = Space([spec])
    point = {"seed": 10**15 - 1}
    assert space.point(space.parameters(point)) == point
    assert space.point(space.parameters({"seed": 10**15 + 1})) is None
