"""What a tuning job may ask for: HyperparameterSpec judged, and a trial's parameters as its trainer gets them.

Called by `jobs.validate` before a job is queued, by `jobs.service` when a running job is changed, and by
`tuning.trial_jobs`. Source: the field descriptions of the `ml` v1 discovery document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise

from enginehouse.schemas.ml_v1 import HyperparameterSpec, ParameterSpec

DEFAULT_METRIC_TAG = "training/hptuning/metric"
MAX_TRIALS = 10_000
"""A limit of ours, as the next one; the original named none."""
MAX_PARAMETERS = 100
MAX_DISCRETE_VALUES = 1000
_EXTRAS = {"TPE": "optuna", "CMA_ES": "cmaes"}
"""The module that an algorithm needs and the engine does not bring."""
_NAME = re.compile(r"[^\W\d][\w.-]*|\d[\w.-]*")

Fault = tuple[str, str]
"""A field below `hyperparameters`, and what is wrong there."""


def metric_tag(spec: HyperparameterSpec) -> str:
    """The tag of the metric that the job optimises."""
    return spec.hyperparameter_metric_tag or DEFAULT_METRIC_TAG


def max_trials(spec: HyperparameterSpec) -> int:
    """How many trials are made, failed ones counted."""
    return spec.max_trials or 1


def max_parallel_trials(spec: HyperparameterSpec) -> int:
    """How many trials may run at a time."""
    return spec.max_parallel_trials or 1


def lacking(algorithm: str) -> str:
    """What to do before an algorithm can be used here; empty if nothing."""
    module = _EXTRAS.get(algorithm)
    if module is None or find_spec(module) is not None:
        return ""
    return (
        f"{algorithm} needs {module}; install it where the engine runs: pip install 'enginehouse[optuna]'. "
        "Without it, leave the algorithm out."
    )


def faults(spec: HyperparameterSpec) -> Iterator[Fault]:
    """All that is wrong, each with its cure."""
    for field, count in (
        ("max_trials", spec.max_trials),
        ("max_parallel_trials", spec.max_parallel_trials),
        ("max_failed_trials", spec.max_failed_trials),
    ):
        if not 0 <= count <= MAX_TRIALS:
            yield field, f"Give a number from 1 to {MAX_TRIALS}, or leave the field out; got {count}."
    if not 1 <= len(spec.params) <= MAX_PARAMETERS:
        yield "params", f"Give 1 to {MAX_PARAMETERS} parameters to tune; got {len(spec.params)}."
    if said := lacking(spec.algorithm):
        yield "algorithm", said
    names = [param.parameter_name for param in spec.params]
    for index, param in enumerate(spec.params):
        at = f"params[{index}]"
        if not _NAME.fullmatch(param.parameter_name):
            yield (
                f"{at}.parameter_name",
                f"{param.parameter_name!r} can't be passed as a flag: use letters, digits, '-', '_' and '.', without "
                "the leading '--'.",
            )
        elif names.index(param.parameter_name) != index:
            yield f"{at}.parameter_name", f"There is another parameter {param.parameter_name!r}."
        for field, text in _param_faults(param):
            yield f"{at}.{field}", text
        if param.type == "DOUBLE" and spec.algorithm == "GRID_SEARCH":
            yield f"{at}.type", "GRID_SEARCH goes through all values; a DOUBLE has too many: make it DISCRETE."


def _param_faults(param: ParameterSpec) -> Iterator[Fault]:
    match param.type:
        case "DOUBLE" | "INTEGER":
            yield from _range_faults(param)
        case "CATEGORICAL":
            values = param.categorical_values
            if not values or len(set(values)) < len(values):
                yield "categorical_values", "Give at least one value, each only once."
            if param.scale_type != "NONE":
                yield "scale_type", "A CATEGORICAL parameter has no scale; leave the field out."
        case "DISCRETE":
            numbers = param.discrete_values
            rising = all(low < high for low, high in pairwise(numbers)) and all(map(math.isfinite, numbers))
            if not (1 <= len(numbers) <= MAX_DISCRETE_VALUES and rising):
                yield "discrete_values", f"Give 1 to {MAX_DISCRETE_VALUES} numbers, strictly increasing."
            elif _needs_positive(param) and numbers[0] <= 0:
                yield "scale_type", f"{param.scale_type} needs numbers above 0."
        case _:
            yield "type", "The field is required: DOUBLE, INTEGER, CATEGORICAL or DISCRETE."
            return
    for field, kinds in (
        ("min_value", ("DOUBLE", "INTEGER")),
        ("max_value", ("DOUBLE", "INTEGER")),
        ("categorical_values", ("CATEGORICAL",)),
        ("discrete_values", ("DISCRETE",)),
    ):
        if param.type not in kinds and getattr(param, field) not in (None, []):
            yield field, f"The field belongs to parameters of type {' or '.join(kinds)}, not {param.type}."


def _range_faults(param: ParameterSpec) -> Iterator[Fault]:
    missing = False
    for field in ("min_value", "max_value"):
        value = getattr(param, field)
        if value is None:
            missing = True
            yield field, f"The field is required for a parameter of type {param.type}."
        elif not math.isfinite(value):
            missing = True
            yield field, "The number must be finite."
        elif param.type == "INTEGER" and value != int(value):
            yield field, f"An INTEGER parameter has whole bounds; {value:g} is none."
    if missing:
        return
    assert param.min_value is not None and param.max_value is not None
    if param.min_value > param.max_value:
        yield "max_value", f"max_value ({param.max_value:g}) should not be below min_value ({param.min_value:g})."
    elif _needs_positive(param) and param.min_value <= 0:
        yield "min_value", f"{param.scale_type} needs a range above 0; min_value is {param.min_value:g}."


def _needs_positive(param: ParameterSpec) -> bool:
    return param.scale_type in ("UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE")


def widening_faults(spec: HyperparameterSpec, before: HyperparameterSpec) -> Iterator[Fault]:
    """Where `spec` does not hold all that trials of `before` can be: names and types the same, ranges at least."""
    if spec.goal != before.goal and {spec.goal, before.goal} != {"GOAL_TYPE_UNSPECIFIED", "MAXIMIZE"}:
        yield "goal", f"The goal was {before.goal} and stays so."
    if metric_tag(spec) != metric_tag(before):
        yield "hyperparameter_metric_tag", f"The metric was {metric_tag(before)!r} and stays so."
    old = {param.parameter_name: param for param in before.params}
    for index, param in enumerate(spec.params):
        was = old.pop(param.parameter_name, None)
        at = f"params[{index}]"
        if was is None:
            yield (
                f"{at}.parameter_name",
                f"There was no parameter {param.parameter_name!r}; parameters stay the same.",
            )
        elif was.type != param.type:
            yield f"{at}.type", f"{param.parameter_name} was {was.type} and stays so."
        else:
            yield from ((f"{at}.{field}", text) for field, text in _narrowed(param, was))
    if old:
        yield "params", f"Parameters stay the same; missing: {', '.join(sorted(old))}."


def _narrowed(param: ParameterSpec, was: ParameterSpec) -> Iterator[Fault]:
    if param.min_value is not None and was.min_value is not None and param.min_value > was.min_value:
        yield "min_value", f"A range can only be widened; min_value was {was.min_value:g}."
    if param.max_value is not None and was.max_value is not None and param.max_value < was.max_value:
        yield "max_value", f"A range can only be widened; max_value was {was.max_value:g}."
    if lost := [value for value in was.categorical_values if value not in param.categorical_values]:
        yield "categorical_values", f"Values can only be added; missing: {', '.join(lost)}."
    if gone := [f"{value:g}" for value in was.discrete_values if value not in param.discrete_values]:
        yield "discrete_values", f"Values can only be added; missing: {', '.join(gone)}."


def flags_of(parameters: Mapping[str, str]) -> Sequence[str]:
    """A trial's parameters as its trainer gets them, behind its other arguments: `--learning-rate 0.0123`.

    A value that looks like a flag itself goes as `--name=-1`, which every parser understands.
    """
    flags: list[str] = []
    for name, value in parameters.items():
        flags += [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return flags
