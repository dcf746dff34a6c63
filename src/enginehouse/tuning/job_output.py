"""The trainingOutput of a tuning job: its trials, best first.

Made anew from the store whenever a job that runs is shown, and stored with the job when it ends. Called by
`jobs.service` and by `tuning.trials`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from enginehouse.core.errors import NotFound
from enginehouse.core.units import format_time
from enginehouse.jobs.hyperparameters import metric_tag
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord, TrialRecord
from enginehouse.schemas.ml_v1 import HyperparameterMetric, HyperparameterOutput, TrainingOutput
from enginehouse.schemas.optimizer import Measurement
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.tuning.job_study import OWN, maximizes, spec_of, study_name, texts_of
from enginehouse.tuning.progress import Progress

T = TypeVar("T")

MAX_SHOWN_METRICS = 100
"""Points of `allMetrics` of one trial, the first and the last among them."""


class TuningOutputs:
    """Makes the outputs of tuning jobs. Thread-safe."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    def of(self, job: JobRecord) -> dict[str, Any]:
        """The output as things are now, JSON-ready."""
        try:
            trials = [each for each in self._store.list_trials(study_name(job.name)) if each.client_id == OWN]
        except NotFound:
            trials = []
        jobs = {each.name.trial_id: each for each in self._store.trials_of(job.name)}
        return tuning_output(job, trials, jobs)


def tuning_output(job: JobRecord, trials: Iterable[TrialRecord], jobs: Mapping[str, JobRecord]) -> dict[str, Any]:
    """The output of a tuning job.

    Args:
        trials: of its study, its own.
        jobs: trial id → the job that runs it.
    """
    spec, stopped = spec_of(job), Progress.from_json(job.run).stopped
    shown = [_trial(trial, jobs.get(str(trial.name.trial_id)), stopped) for trial in trials]
    output = TrainingOutput(
        completed_trial_count=sum(each.state == "SUCCEEDED" for each in shown),  # type: ignore[arg-type]
        trials=best_first(shown, maximize=maximizes(spec)),
        consumed_ml_units=round(sum(each.output.get("consumedMLUnits", 0.0) for each in jobs.values()), 2),
        is_hyperparameter_tuning_job=True,
        hyperparameter_metric_tag=metric_tag(spec),
    )
    value = to_builtins(output)
    value["completedTrialCount"] = str(int(output.completed_trial_count))
    return value


def best_first(trials: Sequence[HyperparameterOutput], *, maximize: bool) -> list[HyperparameterOutput]:
    """Those with a final metric by it, the best first and NaN last; then the others, failed ones at the end."""

    def key(trial: HyperparameterOutput) -> tuple[int, float, int]:
        if trial.final_metric is None:
            return (3 if trial.state in ("FAILED", "CANCELLED") else 2), 0.0, int(trial.trial_id)
        value = trial.final_metric.objective_value
        if value is None or math.isnan(value):
            return 1, 0.0, int(trial.trial_id)
        return 0, -value if maximize else value, int(trial.trial_id)

    return sorted(trials, key=key)


def _trial(trial: TrialRecord, job: JobRecord | None, stopped: Mapping[str, str]) -> HyperparameterOutput:
    trial_id = str(trial.name.trial_id)
    is_stopped = job is not None and job.state == "CANCELLED" and trial_id in stopped
    shown = HyperparameterOutput(
        trial_id=trial_id,
        hyperparameters=texts_of(trial.parameters),
        all_metrics=[_metric(each) for each in _thinned(trial.measurements)],
        is_trial_stopped_early=is_stopped,
        state="SUCCEEDED" if is_stopped else job.state if job is not None else "QUEUED",
    )
    if trial.final_measurement is not None:
        shown.final_metric = _metric(trial.final_measurement)
    if job is not None and job.start_time_ns is not None:
        shown.start_time = format_time(job.start_time_ns)
    if job is not None and job.end_time_ns is not None:
        shown.end_time = format_time(job.end_time_ns)
    return shown


def _metric(measurement: dict[str, Any]) -> HyperparameterMetric:
    read = from_builtins(Measurement, measurement)
    return HyperparameterMetric(training_step=read.step_count, objective_value=read.metrics[0].value)


def _thinned(points: Sequence[T]) -> Sequence[T]:
    if len(points) <= MAX_SHOWN_METRICS:
        return points
    last = len(points) - 1
    return [points[round(at * last / (MAX_SHOWN_METRICS - 1))] for at in range(MAX_SHOWN_METRICS)]
