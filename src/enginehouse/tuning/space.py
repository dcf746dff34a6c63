"""The search space of a study as a unit cube: what a parameter's value is as a number in [0, 1], and back.

Every parameter, each child too, is one axis. In come the specs of a study's configuration, which is a valid one; out
come coordinates, and points of the space. Called by the algorithms; standard library only.

The scales, for a range from a to b (the formulas of Vizier):

    linear       u = (x - a) / (b - a)
    log          u = ln(x / a) / ln(b / a)
    reverse log  u = 1 - ln((a + b - x) / a) / ln(b / a)

A whole number has the middle of its share of the axis, from half below the first to half above the last one. The
values of a DISCRETE parameter without a scale, and categories, lie evenly spaced, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from enginehouse.schemas.optimizer import StudyParameterSpec, TrialParameter
from enginehouse.tuning.study_config import Value, active_children, parameter_of, parent_values, value_of

Point = Mapping[str, Value]
"""The values of the active parameters by name."""
MAX_LEVELS = 1000
"""A whole number with more values than this is treated as if it were continuous, until it is rounded."""
INACTIVE = 1.5
"""The coordinate of a parameter that a point doesn't have. It lies outside of the cube, so that points with and
without the parameter differ by about the width of its axis, and those without it don't."""


@dataclass(frozen=True)
class Axis:
    """One parameter of the space.

    Attributes:
        parent: the place of its parent among the axes, which comes before it; None if it is always there.
        when: the values of the parent for which it is there.
    """

    spec: StudyParameterSpec
    parent: int | None = None
    when: tuple[Value, ...] = ()

    @property
    def is_categorical(self) -> bool:
        return self.spec.type == "CATEGORICAL"

    @cached_property
    def values(self) -> Sequence[Value] | None:
        """All values, in their order; None for a DOUBLE."""
        if self.spec.integer_value_spec:
            return range(int(self.spec.integer_value_spec.min_value), int(self.spec.integer_value_spec.max_value) + 1)
        listed = self.spec.discrete_value_spec or self.spec.categorical_value_spec
        return listed.values if listed else None

    def has(self, value: Value) -> bool:
        """Whether it is one of the parameter's values."""
        if self.spec.double_value_spec or self.spec.integer_value_spec:  # a range looks its numbers through
            return self._range[0] <= float(value) <= self._range[1]
        return self.values is not None and value in self.values

    @cached_property
    def levels(self) -> list[float] | None:
        """The coordinates of all values, rising; None for a DOUBLE or a whole number of very many values."""
        if self.values is None or len(self.values) > MAX_LEVELS:
            return None
        return [self.to_unit(value) for value in self.values]

    def to_unit(self, value: Value) -> float:
        """The coordinate of a value, in [0, 1]."""
        if self.spec.categorical_value_spec or self._is_evenly_spaced:
            assert self.values is not None
            return (self.values.index(value) + 0.5) / len(self.values)
        return min(max(_unscaled(self.spec.scale_type, *self._range, float(value)), 0.0), 1.0)

    def from_unit(self, u: float) -> Value:
        """The value whose coordinate is nearest to `u`."""
        u = min(max(u, 0.0), 1.0)
        if self.spec.double_value_spec or self.spec.integer_value_spec or self.spec.categorical_value_spec:
            return self.at_share(u)
        assert self.values is not None and self.levels is not None
        levels = self.levels
        return self.values[min(range(len(levels)), key=lambda index: abs(levels[index] - u))]

    def at_share(self, u: float) -> Value:
        """The value at `u`, in [0, 1], where each of a list or of the whole numbers of a scale has its share."""
        if self.spec.double_value_spec:
            low, high = self._range
            return min(max(_scaled(self.spec.scale_type, low, high, u), low), high)
        if self.spec.integer_value_spec:
            first, last = int(self.spec.integer_value_spec.min_value), int(self.spec.integer_value_spec.max_value)
            return min(max(round(_scaled(self.spec.scale_type, *self._range, u)), first), last)
        assert self.values is not None
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def span(self, value: Value) -> tuple[float, float]:
        """The part of the axis that stands for one value of a parameter that is no DOUBLE."""
        if self.levels is None:
            number, scale = float(value), self.spec.scale_type
            return _unscaled(scale, *self._range, number - 0.5), _unscaled(scale, *self._range, number + 0.5)
        u = self.to_unit(value)
        return u - 1e-9, u + 1e-9

    @property
    def _is_evenly_spaced(self) -> bool:
        return self.spec.discrete_value_spec is not None and self.spec.scale_type == "SCALE_TYPE_UNSPECIFIED"

    @cached_property
    def _range(self) -> tuple[float, float]:
        if self.spec.double_value_spec:
            return self.spec.double_value_spec.min_value, self.spec.double_value_spec.max_value
        if self.spec.integer_value_spec:
            # From half below to half above, so that the ends have the share of the others.
            bounds = self.spec.integer_value_spec
            return int(bounds.min_value) - 0.5, int(bounds.max_value) + 0.5
        assert self.spec.discrete_value_spec is not None
        return self.spec.discrete_value_spec.values[0], self.spec.discrete_value_spec.values[-1]


class Space:
    """The axes of a study, parents before their children."""

    def __init__(self, specs: Sequence[StudyParameterSpec]) -> None:
        self.specs = specs
        self.axes: list[Axis] = []
        self._add(specs, None)

    def _add(self, specs: Sequence[StudyParameterSpec], parent: int | None) -> None:
        for spec in specs:
            when = tuple(parent_values(self.axes[parent].spec, spec)) if parent is not None else ()
            self.axes.append(Axis(spec, parent, when))
            self._add(spec.child_parameter_specs, len(self.axes) - 1)

    def to_unit(self, point: Point) -> list[float]:
        """Coordinates, one for each axis; INACTIVE for the parameters that the point doesn't have."""
        active = {id(axis) for _, axis in self.active(point)}
        return [axis.to_unit(point[axis.spec.parameter]) if id(axis) in active else INACTIVE for axis in self.axes]

    def from_unit(self, unit: Sequence[float]) -> dict[str, Value]:
        """The point nearest to coordinates, one for each axis; those of inactive parameters don't count."""
        return self._walk([axis.from_unit(u) for axis, u in zip(self.axes, unit, strict=True)])

    def at_shares(self, shares: Sequence[float]) -> dict[str, Value]:
        """The point where each parameter's value has its share of [0, 1]."""
        return self._walk([axis.at_share(u) for axis, u in zip(self.axes, shares, strict=True)])

    def draw(self, random: Random) -> dict[str, Value]:
        """A random point, uniform in each parameter's scale."""
        return _draw(self.specs, random)

    def size(self) -> float:
        """How many points there are; inf with a DOUBLE."""
        return _size(self.specs)

    def parameters(self, point: Point) -> list[TrialParameter]:
        """The point as messages, parents before their children."""
        return [parameter_of(axis.spec, point[axis.spec.parameter]) for _, axis in self.active(point)]

    def point(self, parameters: Sequence[TrialParameter]) -> dict[str, Value] | None:
        """The point of messages; None if they are none of this space, as of a study whose ranges were changed."""
        given = {parameter.parameter: parameter for parameter in parameters}
        point: dict[str, Value] = {}
        try:
            for _, axis in self.active(point):
                value = value_of(axis.spec, given.pop(axis.spec.parameter))
                if value is None or not axis.has(value):
                    return None
                point[axis.spec.parameter] = value
        except KeyError:
            return None
        return None if given else point

    def active(self, point: Point) -> Iterator[tuple[str, Axis]]:
        """Number and axis of each parameter that a point has; the point may be filled while they are gone through."""
        active: list[bool] = []
        for index, axis in enumerate(self.axes):
            there = axis.parent is None or (
                active[axis.parent] and point[self.axes[axis.parent].spec.parameter] in axis.when
            )
            active.append(there)
            if there:
                yield str(index), axis

    def _walk(self, values: Sequence[Value]) -> dict[str, Value]:
        point: dict[str, Value] = {}
        active: list[bool] = []
        for axis, value in zip(self.axes, values, strict=True):
            there = axis.parent is None or (active[axis.parent] and values[axis.parent] in axis.when)
            active.append(there)
            if there:
                point[axis.spec.parameter] = value
        return point


def _draw(specs: Sequence[StudyParameterSpec], random: Random) -> dict[str, Value]:
    point: dict[str, Value] = {}
    for spec in specs:
        value = Axis(spec).at_share(random.random())
        point |= {spec.parameter: value, **_draw(active_children(spec, value), random)}
    return point


def _size(specs: Sequence[StudyParameterSpec]) -> float:
    size = 1.0
    for spec in specs:
        values = Axis(spec).values
        if values is None:
            return math.inf
        with_children = {value for child in spec.child_parameter_specs for value in parent_values(spec, child)}
        size *= len(values) - len(with_children) + sum(_size(active_children(spec, value)) for value in with_children)
    return size


def _scaled(scale: str, low: float, high: float, u: float) -> float:
    """From [0, 1] to the range."""
    if scale == "UNIT_LOG_SCALE":
        return float(low * (high / low) ** u)
    if scale == "UNIT_REVERSE_LOG_SCALE":
        return float(low + high - low * (high / low) ** (1 - u))
    return low * (1 - u) + high * u


def _unscaled(scale: str, low: float, high: float, x: float) -> float:
    """From the range to [0, 1]; the middle if the range is one value."""
    if low == high:
        return 0.5
    if scale == "UNIT_LOG_SCALE":
        return math.log(x / low) / math.log(high / low)
    if scale == "UNIT_REVERSE_LOG_SCALE":
        # At the top of a very wide range the difference may be rounded to 0.
        return 1 - math.log(max(low + high - x, low) / low) / math.log(high / low)
    # Halves, since the width of a range may be more than a float holds.
    return (x / 2 - low / 2) / (high / 2 - low / 2)
