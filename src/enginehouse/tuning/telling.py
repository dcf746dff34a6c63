"""What a tuning job's log tells its owner: how trials ended, the best so far, and flags that nothing reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from enginehouse.metadata.records import JobRecord, TrialRecord
from enginehouse.schemas.optimizer import Measurement
from enginehouse.schemas.wire import from_builtins
from enginehouse.tuning.job_study import maximizes, spec_of
from enginehouse.tuning.tuned_job import TunedJob


def parameters_line(parameters: Mapping[str, str]) -> str:
    """`learning-rate=0.001, num-layers=3`."""
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def end_line(tuned: TunedJob, trial: TrialRecord, own: JobRecord | None) -> str:
    """How a trial ended, with the best so far."""
    number = trial.name.trial_id
    who = f"Trial {number} of {tuned.last_number}"
    stopped = tuned.progress.stopped.get(str(number), "")
    if own is None or (own.state == "CANCELLED" and not stopped):
        return f"{who} was cancelled."
    if own.state == "FAILED":
        return f"{who} failed: {_first_line(own.error_message)}"
    how = f"was stopped early ({stopped.rstrip('.')})" if own.state == "CANCELLED" else "completed"
    if trial.final_measurement is None:
        return f"{who} {how} without the metric {metric_of(tuned)!r}."
    final = from_builtins(Measurement, trial.final_measurement)
    value = f"{metric_of(tuned)} {final.metrics[0].value:.6g} at step {final.step_count}"
    return f"{who} {how}: {value}; {best_line(tuned)}"


def best_line(tuned: TunedJob) -> str:
    """`best so far: trial 1, 0.967.`"""
    sign = 1.0 if maximizes(spec_of(tuned.job)) else -1.0
    finals = [
        (from_builtins(Measurement, trial.final_measurement).metrics[0].value, -trial.name.trial_id)
        for trial in tuned.trials
        if trial.final_measurement is not None
    ]
    numbers = [(value * sign, number) for value, number in finals if not math.isnan(value)]
    if not numbers:
        return "no number so far."
    value, number = max(numbers)
    return f"best so far: trial {-number}, {value * sign:.6g}."


def metric_of(tuned: TunedJob) -> str:
    """The name of the metric."""
    name: str = tuned.study.config["metrics"][0]["metric"]
    return name


def unread_warnings(unread: Mapping[str, Sequence[str]]) -> list[str]:
    """That the trainer knows nothing of a parameter that is tuned.

    Args:
        unread: name of a flag → options of the trainer that may have been meant.
    """
    warnings = []
    for name, alike in unread.items():
        meant = f" Did you mean {' or '.join(alike)}? Call the parameter so." if alike else ""
        warnings.append(
            f"The trainer never read --{name}: its argument parser does not know that flag and left it over, so "
            f"tuning {name} changes nothing.{meant}"
        )
    return warnings


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
