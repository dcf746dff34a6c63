"""Optuna's samplers by ask and tell, with their defaults; for batches TPE gets what Optuna advises for them."""

from __future__ import annotations

import warnings
from typing import Any

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore")


class OptunaAsker:
    """An `Asker` (see worker.py)."""

    def __init__(self, sampler: Any, parameters: list[dict[str, Any]]) -> None:
        self._study = optuna.create_study(sampler=sampler)
        self._parameters = parameters

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        asked = []
        for _ in range(count):
            trial = self._study.ask()
            asked.append((trial.number, suggested(trial, self._parameters)))
        return asked

    def tell(self, number: int, cost: float) -> None:
        self._study.tell(number, cost)


def suggested(trial: Any, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in parameters:
        name, scale = spec["parameter"], spec.get("scaleType", "")
        value: Any
        if spec["type"] == "DOUBLE":
            low, high = spec["doubleValueSpec"]["minValue"], spec["doubleValueSpec"]["maxValue"]
            if scale == "UNIT_REVERSE_LOG_SCALE":  # which Optuna lacks
                value = low + high - trial.suggest_float(name, low, high, log=True)
                value = min(max(value, low), high)
            else:
                value = trial.suggest_float(name, low, high, log=scale == "UNIT_LOG_SCALE")
        elif spec["type"] == "INTEGER":
            low, high = (int(spec["integerValueSpec"][end]) for end in ("minValue", "maxValue"))
            value = trial.suggest_int(name, low, high, log=scale == "UNIT_LOG_SCALE")
        elif spec["type"] == "DISCRETE":
            # As a number by its place: as categories Optuna would know no order of them.
            listed = spec["discreteValueSpec"]["values"]
            value = listed[trial.suggest_int(name, 0, len(listed) - 1)]
        else:
            value = trial.suggest_categorical(name, spec["categoricalValueSpec"]["values"])
        values[name] = value
        for child in spec.get("childParameterSpecs", ()):
            if value in child["parentCategoricalValues"]["values"]:
                values |= suggested(trial, [child])
    return values


def make(algorithm: str, parameters: list[dict[str, Any]], seed: int, batch: int) -> OptunaAsker:
    if algorithm == "TPE":
        return OptunaAsker(optuna.samplers.TPESampler(seed=seed, constant_liar=batch > 1), parameters)
    return OptunaAsker(optuna.samplers.GPSampler(seed=seed), parameters)
