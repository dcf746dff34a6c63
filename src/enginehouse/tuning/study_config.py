"""What a StudyConfig may say, and which parameters a trial of it has.

Called by `tuning.service` before anything is stored, so that all rooms behind it may trust what they read.
Source: the field descriptions of the `ml` v1 discovery document, revision 20251213.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from enginehouse.core.errors import FieldViolation, InvalidArgument
from enginehouse.schemas.optimizer import StudyConfig, StudyParameterSpec, TrialParameter
from enginehouse.schemas.wire import Int64

Value = float | int | str
MAX_DISCRETE_VALUES = 1000
MAX_PARAMETERS = 200
"""A limit of ours, as the next one; the original named none."""
_MAX_DEPTH = 20
"""Of children of children."""
_VALUE_SPECS = {
    "DOUBLE": "double_value_spec",
    "INTEGER": "integer_value_spec",
    "CATEGORICAL": "categorical_value_spec",
    "DISCRETE": "discrete_value_spec",
}
_PARENT_VALUES = {
    "INTEGER": "parent_int_values",
    "CATEGORICAL": "parent_categorical_values",
    "DISCRETE": "parent_discrete_values",
}
_VALUE_FIELDS = {"DOUBLE": "float_value", "DISCRETE": "float_value", "INTEGER": "int_value"}


def check_study_config(config: StudyConfig, *, field: str) -> None:
    """Judge all of it.

    Raises:
        InvalidArgument: with every wrong field, paths beginning with `field`.
    """
    violations = [FieldViolation(f"{field}.{path}", text) for path, text in _faults(config)]
    if violations:
        raise InvalidArgument(violations=violations)


def check_parameters(config: StudyConfig, parameters: Sequence[TrialParameter], *, field: str) -> None:
    """Judge a trial that a user adds: each active parameter once, with a value of its own kind and range.

    Raises:
        InvalidArgument: naming the first wrong parameter.
    """
    given = {parameter.parameter: parameter for parameter in parameters}
    if len(given) < len(parameters):
        raise InvalidArgument("A parameter is given twice.", field=field)
    open_specs = list(config.parameters)
    while open_specs:
        spec = open_specs.pop()
        parameter = given.pop(spec.parameter, None)
        if parameter is None:
            raise InvalidArgument(f"The parameter {spec.parameter!r} is missing.", field=field)
        value = value_of(spec, parameter)
        if value is None or not _is_allowed(spec, value):
            raise InvalidArgument(
                f"The parameter {spec.parameter!r} needs {_VALUE_FIELDS.get(spec.type, 'string_value')} with a value "
                "that the study allows.",
                field=field,
            )
        open_specs += active_children(spec, value)
    if given:
        names = ", ".join(sorted(given))
        raise InvalidArgument(f"The study has no such parameter where the others are as given: {names}.", field=field)


def value_of(spec: StudyParameterSpec, parameter: TrialParameter) -> Value | None:
    """The value in the field that the parameter's type asks for; None if that is not set."""
    value: Value | None = getattr(parameter, _VALUE_FIELDS.get(spec.type, "string_value"))
    return value


def parameter_of(spec: StudyParameterSpec, value: Value) -> TrialParameter:
    """The message with the value in the field that the parameter's type asks for."""
    field = _VALUE_FIELDS.get(spec.type, "string_value")
    return TrialParameter(parameter=spec.parameter, **{field: Int64(value) if field == "int_value" else value})  # type: ignore[arg-type]


def active_children(spec: StudyParameterSpec, value: Value) -> list[StudyParameterSpec]:
    """The child parameters that exist where the parent has this value."""
    return [child for child in spec.child_parameter_specs if value in parent_values(spec, child)]


def parent_values(spec: StudyParameterSpec, child: StudyParameterSpec) -> Sequence[Value]:
    """The values of the parent `spec` for which the child exists."""
    matching = getattr(child, _PARENT_VALUES.get(spec.type, ""), None)
    return matching.values if matching is not None else ()


def _is_allowed(spec: StudyParameterSpec, value: Value) -> bool:
    if spec.double_value_spec:
        return spec.double_value_spec.min_value <= float(value) <= spec.double_value_spec.max_value
    if spec.integer_value_spec:
        return spec.integer_value_spec.min_value <= int(value) <= spec.integer_value_spec.max_value
    values = spec.discrete_value_spec or spec.categorical_value_spec
    return values is not None and value in values.values


Fault = tuple[str, str]
"""A path and what is wrong there."""


def _faults(config: StudyConfig) -> Iterator[Fault]:
    if not config.metrics:
        yield "metrics", "A study has at least one metric."
    names = [metric.metric for metric in config.metrics]
    for index, metric in enumerate(config.metrics):
        if not metric.metric or names.count(metric.metric) > 1:
            yield f"metrics[{index}].metric", "Each metric has a name of its own."
        if metric.goal == "GOAL_TYPE_UNSPECIFIED":
            yield f"metrics[{index}].goal", "The goal is required: MAXIMIZE or MINIMIZE."
    if not config.parameters:
        yield "parameters", "A study has at least one parameter."
    if sum(1 for _ in _names(config.parameters)) > MAX_PARAMETERS:
        yield "parameters", f"A study has at most {MAX_PARAMETERS} parameters, children counted."
        return
    for index, spec in enumerate(config.parameters):
        where = f"parameters[{index}]"
        for field in _PARENT_VALUES.values():
            if getattr(spec, field) is not None:
                yield f"{where}.{field}", "Only a child parameter names values of its parent."
        beside = frozenset(_names(other for other in config.parameters if other is not spec))
        yield from _spec_faults(spec, where, beside, config.algorithm, _MAX_DEPTH)
    stopping = config.automated_stopping_config
    if stopping:
        halving = stopping.successive_halving_stopping_config
        ways = (stopping.decay_curve_stopping_config, stopping.median_automated_stopping_config, halving)
        if sum(way is not None for way in ways) != 1:
            yield "automated_stopping_config", "Name one way to stop trials."
        if halving and (halving.reduction_factor < 0 or halving.reduction_factor == 1):
            at = "automated_stopping_config.successive_halving_stopping_config.reduction_factor"
            yield at, "One of at least 2 trials goes on; 0 leaves it to the service."


def _spec_faults(
    spec: StudyParameterSpec, where: str, taken: frozenset[str], algorithm: str, depth: int
) -> Iterator[Fault]:
    """Args: taken: names that may be active at the same time."""
    if not spec.parameter:
        yield f"{where}.parameter", "The name is required."
    if spec.parameter in taken:
        yield f"{where}.parameter", f"There is another parameter {spec.parameter!r} at the same time."
    if spec.type == "PARAMETER_TYPE_UNSPECIFIED":
        yield f"{where}.type", "The type is required: DOUBLE, INTEGER, CATEGORICAL or DISCRETE."
        return
    if algorithm == "GRID_SEARCH" and spec.type == "DOUBLE":
        yield f"{where}.type", "GRID_SEARCH goes through all values; a DOUBLE has too many: make it DISCRETE."
    for kind, field in _VALUE_SPECS.items():
        if (getattr(spec, field) is not None) != (kind == spec.type):
            said = "is required" if kind == spec.type else "does not belong here"
            yield f"{where}.{field}", f"A parameter of type {spec.type} has {_VALUE_SPECS[spec.type]}: this {said}."
            return
    yield from _range_faults(spec, where)
    yield from _children_faults(spec, where, taken | {spec.parameter}, algorithm, depth)


def _range_faults(spec: StudyParameterSpec, where: str) -> Iterator[Fault]:
    at = f"{where}.{_VALUE_SPECS[spec.type]}"
    least: float = 0.0
    if bounds := spec.double_value_spec or spec.integer_value_spec:
        least = bounds.min_value
        if not (math.isfinite(least) and math.isfinite(bounds.max_value) and least <= bounds.max_value):
            yield at, "The range needs finite bounds, min_value not above max_value."
    elif spec.discrete_value_spec:
        values = spec.discrete_value_spec.values
        least = values[0] if values else 0.0
        rising = all(low < high for low, high in pairwise(values))
        if not (values and rising and len(values) <= MAX_DISCRETE_VALUES and all(map(math.isfinite, values))):
            yield f"{at}.values", f"Give 1 to {MAX_DISCRETE_VALUES} numbers, strictly increasing."
    elif spec.categorical_value_spec:
        categories = spec.categorical_value_spec.values
        if not categories or len(set(categories)) < len(categories):
            yield f"{at}.values", "Give at least one value, each only once."
        if spec.scale_type != "SCALE_TYPE_UNSPECIFIED":
            yield f"{where}.scale_type", "A CATEGORICAL parameter has no scale."
    if spec.scale_type in ("UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE") and least <= 0:
        yield f"{where}.scale_type", f"{spec.scale_type} needs a range above 0."


def _children_faults(
    spec: StudyParameterSpec, where: str, taken: frozenset[str], algorithm: str, depth: int
) -> Iterator[Fault]:
    if spec.child_parameter_specs and (spec.type == "DOUBLE" or not depth):
        why = "A DOUBLE parameter can't have children." if depth else f"More than {_MAX_DEPTH} levels of children."
        yield f"{where}.child_parameter_specs", why
        return
    for index, child in enumerate(spec.child_parameter_specs):
        at = f"{where}.child_parameter_specs[{index}]"
        matching = parent_values(spec, child)
        if not matching or not all(_is_allowed(spec, value) for value in matching):
            yield f"{at}.{_PARENT_VALUES[spec.type]}", "Name at least one value that the parent can have."
        beside = _names(
            other
            for other in spec.child_parameter_specs
            if other is not child and set(parent_values(spec, other)) & set(matching)
        )
        yield from _spec_faults(child, at, taken.union(beside), algorithm, depth - 1)


def _names(specs: Iterable[StudyParameterSpec]) -> Iterator[str]:
    """The names of parameters and of all children below them."""
    open_specs = list(specs)
    while open_specs:
        spec = open_specs.pop()
        yield spec.parameter
        open_specs += spec.child_parameter_specs
