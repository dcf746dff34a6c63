"""OSS Vizier's default algorithm, a designer that is asked without its service.

It knows no conditional parameters: a study has all children as parameters of their own, and those that a trial lacks
aren't used. Trials are padded to multiples of ten, so that it compiles less often. With numbers of 32 bits, JAX's
default, its model becomes NaN after a few trials.
"""

from __future__ import annotations

from typing import Any

import jax
from vizier import algorithms as vza
from vizier import pyvizier as vz
from vizier._src.algorithms.designers.gp_ucb_pe import VizierGPUCBPEBandit
from vizier.pyvizier.converters import padding

jax.config.update("jax_enable_x64", True)
SCALES = {
    "UNIT_LINEAR_SCALE": vz.ScaleType.LINEAR,
    "UNIT_LOG_SCALE": vz.ScaleType.LOG,
    "UNIT_REVERSE_LOG_SCALE": vz.ScaleType.REVERSE_LOG,
}


class VizierAsker:
    """An `Asker` (see worker.py)."""

    def __init__(self, parameters: list[dict[str, Any]], seed: int) -> None:
        problem = vz.ProblemStatement()
        problem.metric_information.append(vz.MetricInformation("cost", goal=vz.ObjectiveMetricGoal.MINIMIZE))
        add(problem.search_space.root, parameters)
        self._parameters = parameters
        self._designer = VizierGPUCBPEBandit(
            problem,
            rng=jax.random.PRNGKey(seed),
            padding_schedule=padding.PaddingSchedule(num_trials=padding.PaddingType.MULTIPLES_OF_10),
        )
        self._active: dict[int, vz.Trial] = {}
        self._completed: list[vz.Trial] = []
        self._count = 0

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        active = vza.ActiveTrials(list(self._active.values()))
        self._designer.update(vza.CompletedTrials(self._completed), active)
        self._completed = []
        asked: list[tuple[int, dict[str, Any]]] = []
        while len(asked) < count:  # of its first trials it gives fewer than were asked for
            for suggestion in self._designer.suggest(count - len(asked)):
                self._count += 1
                self._active[self._count] = suggestion.to_trial(self._count)
                asked.append((self._count, used(self._parameters, suggestion.parameters.as_dict())))
        return asked

    def tell(self, number: int, cost: float) -> None:
        self._completed.append(self._active.pop(number).complete(vz.Measurement({"cost": cost})))


def add(root: Any, parameters: list[dict[str, Any]]) -> None:
    for spec in parameters:
        name, scale = spec["parameter"], SCALES.get(spec.get("scaleType", ""))
        if spec["type"] == "DOUBLE":
            bounds = spec["doubleValueSpec"]
            root.add_float_param(name, bounds["minValue"], bounds["maxValue"], scale_type=scale)
        elif spec["type"] == "INTEGER":
            bounds = spec["integerValueSpec"]
            root.add_int_param(name, int(bounds["minValue"]), int(bounds["maxValue"]), scale_type=scale)
        elif spec["type"] == "DISCRETE":
            root.add_discrete_param(name, spec["discreteValueSpec"]["values"], scale_type=scale)
        else:
            root.add_categorical_param(name, spec["categoricalValueSpec"]["values"])
        add(root, spec.get("childParameterSpecs", []))


def used(parameters: list[dict[str, Any]], given: dict[str, Any]) -> dict[str, Any]:
    """The values of the parameters that are active."""
    values: dict[str, Any] = {}
    for spec in parameters:
        values[spec["parameter"]] = value = given[spec["parameter"]]
        for child in spec.get("childParameterSpecs", ()):
            if value in child["parentCategoricalValues"]["values"]:
                values |= used([child], given)
    return values


def make(algorithm: str, parameters: list[dict[str, Any]], seed: int, batch: int) -> VizierAsker:
    return VizierAsker(parameters, seed)
