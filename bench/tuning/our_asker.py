"""Our algorithms, asked as the engine asks them: by the records of a study and its trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enginehouse.core.names import StudyName
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.wire import to_builtins
from enginehouse.tuning.search import SearchPolicy

NAME = StudyName("bench", "us-central1", "study")
ALGORITHMS = {
    "ours": "ALGORITHM_UNSPECIFIED",
    "random": "RANDOM_SEARCH",
    "quasi-random": "QUASI_RANDOM_SEARCH",
}


class OurAsker:
    """An `Asker` (see worker.py)."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self._policy = SearchPolicy()
        self._study = StudyRecord(name=NAME, config=config, create_time_ns=1, seed=seed)
        self._trials: list[TrialRecord] = []

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        first = self._study.next_trial_id
        points = self._policy.suggest(self._study, self._trials, count)
        asked = []
        for number, point in enumerate(points, first):
            self._trials.append(TrialRecord(NAME.trial(number), "ACTIVE", [to_builtins(each) for each in point], 1))
            values: dict[str, Any] = {}
            for each in point:
                given = (each.float_value, each.int_value, each.string_value)
                (values[each.parameter],) = (value for value in given if value is not None)
            asked.append((number, values))
        self._study = replace(self._study, next_trial_id=first + len(asked))
        return asked

    def tell(self, number: int, cost: float) -> None:
        final = {"stepCount": "1", "metrics": [{"metric": "cost", "value": cost}]}
        trial = self._trials[number - 1]
        self._trials[number - 1] = replace(trial, state="COMPLETED", final_measurement=final)


def make(algorithm: str, parameters: list[dict[str, Any]], seed: int, batch: int) -> OurAsker:
    config = {
        "metrics": [{"metric": "cost", "goal": "MINIMIZE"}],
        "parameters": parameters,
        "algorithm": ALGORITHMS[algorithm],
    }
    return OurAsker(config, seed)
