"""What happens to a study and its trials, as pure functions of records.

Called by `tuning.service` inside the store's transactions. Every change may be asked for again by a client that lost
its answer, so each of them leaves what it finds done already.

    REQUESTED ──suggest──► ACTIVE ──(early) stop──► STOPPING
        └──────────────────────┴───────complete────────┴───► COMPLETED
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.core.units import parse_duration_s
from enginehouse.metadata.records import StudyRecord, TrialRecord
from enginehouse.schemas.optimizer import Measurement, StudyConfig, TrialParameter
from enginehouse.schemas.wire import from_builtins, to_builtins


@dataclass(frozen=True)
class Assignment:
    """What a client gets when it asks for suggestions.

    Attributes:
        study: with its count of trials.
        taken: the client's trials, in the order of their ids.
        changed: those of them that are new or were nobody's before.
        missing: how many new parameters are needed beyond those that were proposed.
    """

    study: StudyRecord
    taken: list[TrialRecord]
    changed: list[TrialRecord]
    missing: int


def assign(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    *,
    client_id: str,
    count: int,
    proposals: Sequence[Sequence[TrialParameter]] = (),
    now_ns: int,
) -> Assignment:
    """Give a client up to `count` trials: its own active ones first, then requested ones, then new ones.

    So a client that asks again, after a crash of its own or of the engine, goes on with the trials that it had.
    """
    own = [trial for trial in trials if trial.state == "ACTIVE" and trial.client_id == client_id][:count]
    requested = [trial for trial in trials if trial.state == "REQUESTED"][: count - len(own)]
    changed = [replace(trial, state="ACTIVE", client_id=client_id, start_time_ns=now_ns) for trial in requested]
    wanted = count - len(own) - len(changed) if study.state == "ACTIVE" else 0
    for parameters in proposals[:wanted]:
        trial = TrialRecord(
            name=study.name.trial(study.next_trial_id),
            state="ACTIVE",
            parameters=[to_builtins(parameter) for parameter in parameters],
            start_time_ns=now_ns,
            client_id=client_id,
        )
        changed.append(trial)
        study = replace(study, next_trial_id=study.next_trial_id + 1)
    taken = sorted([*own, *changed], key=lambda trial: trial.name)
    return Assignment(study, taken, changed, wanted - len(proposals[:wanted]))


def check_measurement(
    measurement: Measurement | None, config: StudyConfig, *, field: str, final: bool
) -> Measurement:
    """The measurement itself if a trial may have it: a final one names every metric of the study, others any.

    Raises:
        InvalidArgument: naming the field below `field`.
    """
    if measurement is None:
        raise InvalidArgument("The measurement is required.", field=field)
    if measurement.step_count < 0:
        raise InvalidArgument("Steps are counted from 0.", field=f"{field}.step_count")
    try:
        if _elapsed_s(measurement) < 0:
            raise ValueError("Time does not go back")
    except ValueError as error:
        raise InvalidArgument(f"{error}.", field=f"{field}.elapsed_time") from None
    names = [metric.metric for metric in measurement.metrics]
    if not names or len(set(names)) < len(names):
        raise InvalidArgument("Give at least one metric, each once.", field=f"{field}.metrics")
    if final and (missing := sorted({metric.metric for metric in config.metrics} - set(names))):
        raise InvalidArgument(f"A final measurement has all metrics; missing: {', '.join(missing)}.", field=field)
    return measurement


def with_measurement(trial: TrialRecord, measurement: Measurement) -> TrialRecord | None:
    """The trial with one measurement more; None if it has exactly this one. Another at the same step and time yields.

    Raises:
        FailedPrecondition: the trial has ended.
    """
    known = _measurements(trial)
    if measurement in known:
        return None
    if trial.state == "COMPLETED":
        raise FailedPrecondition("The trial is COMPLETED and takes no more measurements.", field="name")
    moment = _moment(measurement)
    kept = [other for other in known if _moment(other) != moment]
    ordered = sorted([*kept, measurement], key=_moment)
    return replace(trial, measurements=[to_builtins(each) for each in ordered])


def completed(
    trial: TrialRecord, final: Measurement | None, *, infeasible: bool, reason: str, config: StudyConfig, now_ns: int
) -> TrialRecord | None:
    """The trial at its end; None if it has ended just so.

    Without a final measurement the last one that was reported counts, if it has all metrics.

    Raises:
        FailedPrecondition: it has ended otherwise, or there is no measurement to take.
    """
    if not infeasible and final is None:
        metrics = {metric.metric for metric in config.metrics}
        whole = [each for each in _measurements(trial) if metrics <= {metric.metric for metric in each.metrics}]
        if not whole:
            raise FailedPrecondition(
                "No measurement with all metrics of the study was reported; give final_measurement, or say "
                "trial_infeasible.",
                field="final_measurement",
            )
        final = whole[-1]
    ended = replace(
        trial,
        state="COMPLETED",
        final_measurement=to_builtins(final) if final and not infeasible else None,
        infeasible=infeasible,
        infeasible_reason=reason if infeasible else "",
        end_time_ns=now_ns if trial.end_time_ns is None else trial.end_time_ns,
    )
    if trial.state != "COMPLETED":
        return ended
    if ended != trial:
        raise FailedPrecondition("The trial is COMPLETED already, with another result.", field="name")
    return None


def stopping(trial: TrialRecord) -> TrialRecord | None:
    """The trial that is to stop; None if it was told so.

    Raises:
        FailedPrecondition: it has ended.
    """
    if trial.state == "COMPLETED":
        raise FailedPrecondition("The trial is COMPLETED already.", field="name")
    return None if trial.state == "STOPPING" else replace(trial, state="STOPPING")


def optimal_trials(config: StudyConfig, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that no other one dominates, by id.

    One trial dominates another if it is at least as good in every metric and better in one. Trials that are
    infeasible, have not ended or have NaN for a metric don't take part.
    """
    scored = [(scores, trial) for trial in trials if (scores := _scores(config, trial)) is not None]
    # Who comes later in this order can't dominate who came before (Kung, Luccio, Preparata 1975).
    scored.sort(key=lambda pair: pair[0], reverse=True)
    front: list[tuple[tuple[float, ...], TrialRecord]] = []
    for scores, trial in scored:
        if not any(better != scores and all(map(float.__ge__, better, scores)) for better, _ in front):
            front.append((scores, trial))
    return sorted((trial for _, trial in front), key=lambda trial: trial.name)


def _scores(config: StudyConfig, trial: TrialRecord) -> tuple[float, ...] | None:
    """The final value of each metric, turned so that more is better; None for a trial without."""
    if trial.state != "COMPLETED" or trial.infeasible or trial.final_measurement is None:
        return None
    final = from_builtins(Measurement, trial.final_measurement)
    values = {metric.metric: metric.value for metric in final.metrics}
    scores = tuple(
        values.get(spec.metric, math.nan) * (-1.0 if spec.goal == "MINIMIZE" else 1.0) for spec in config.metrics
    )
    return None if any(map(math.isnan, scores)) else scores


def _measurements(trial: TrialRecord) -> list[Measurement]:
    return [from_builtins(Measurement, each) for each in trial.measurements]


def _moment(measurement: Measurement) -> tuple[int, float]:
    return measurement.step_count, _elapsed_s(measurement)


def _elapsed_s(measurement: Measurement) -> float:
    return parse_duration_s(measurement.elapsed_time) if measurement.elapsed_time else 0.0
