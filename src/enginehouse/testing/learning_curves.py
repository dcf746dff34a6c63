"""Studies of learning curves, run under a rule for stopping: three families, as trainers show them.

Scores rise towards an end that differs from trial to trial, with noise on every measurement:

* power: end - b t^-c, most of the gain early, some trials steeper than others;
* exponential: slow ones pass quick ones, the learning rate decides both speed and end;
* late: nothing for a while, then a rise (a sigmoid of the time), each trial at its own moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from enginehouse.core.names import StudyName
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.tuning.search import SearchPolicy

NAME = StudyName("demo", "us-central1", "curves")
STEPS = 30
NOISE = 0.004


def power(random: Random) -> list[float]:
    end, gain, speed = random.betavariate(4, 2), random.uniform(0.2, 0.6), random.uniform(0.4, 1.2)
    return [end - gain * ((t + 1) ** -speed) for t in range(STEPS)]


def exponential(random: Random) -> list[float]:
    speed = random.uniform(0.0, 1.0)
    end = random.betavariate(4, 2) * (0.75 + 0.25 * (1 - speed))
    return [end * (1 - math.exp(-(t + 1) / (2 + 8 * (1 - speed)))) for t in range(STEPS)]


def late(random: Random) -> list[float]:
    start, end, moment = random.uniform(0.05, 0.15), random.betavariate(4, 2), random.uniform(3, 12)
    return [start + (end - start) / (1 + math.exp(-(t - moment) / 1.5)) for t in range(STEPS)]


FAMILIES = {"power": power, "exponential": exponential, "late": late}


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    saved: the share of the steps that were not run.
    lost: whether the trial was stopped that would have ended best.
    """

    saved: float
    lost: bool


def run_study(family: str, stopping: dict[str, Any], *, seed: int, trials: int = 30, parallel: int = 3) -> Outcome:
    """Trials go on together, a measurement at a time, and are judged after each."""
    random = Random(f"{family}/{seed}")
    curves = [[score + random.gauss(0, NOISE) for score in FAMILIES[family](random)] for _ in range(trials)]
    config = {
        "metrics": [{"metric": "acc", "goal": "MAXIMIZE"}],
        "parameters": [{"parameter": "x", "type": "DOUBLE", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}],
        "automatedStoppingConfig": stopping,
    }
    study = StudyRecord(name=NAME, config=config, create_time_ns=1, seed=seed)
    records: dict[int, TrialRecord] = {}
    waiting, ran = list(range(trials)), 0
    running: list[int] = []
    stopped: set[int] = set()
    while waiting or running:
        while waiting and len(running) < parallel:
            index = waiting.pop(0)
            records[index] = TrialRecord(NAME.trial(index + 1), "ACTIVE", [], 1)
            running.append(index)
        for index in list(running):
            trial = records[index]
            step = len(trial.measurements)
            told = {"stepCount": str(step + 1), "metrics": [{"metric": "acc", "value": curves[index][step]}]}
            trial = replace(trial, measurements=[*trial.measurements, told])
            ran += 1
            over = step + 1 == STEPS
            if not over and SearchPolicy().should_stop(study, list(records.values()), trial).stop:
                stopped.add(index)
                over = True
            if over:
                trial = replace(trial, state="COMPLETED", final_measurement=told)
                running.remove(index)
            records[index] = trial
    best = max(range(trials), key=lambda index: curves[index][-1])
    return Outcome(1 - ran / (trials * STEPS), best in stopped)
