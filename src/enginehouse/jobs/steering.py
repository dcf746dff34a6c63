"""What may be changed of a tuning job while it runs: more trials, more of them at a time, wider ranges.

An extension of ours to `projects.jobs.patch`. Called by `jobs.service` inside the store's transaction; the next step
of `tuning.trials` goes on with what is stored then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from enginehouse.core.errors import FailedPrecondition, FieldViolation, InvalidArgument
from enginehouse.jobs import hyperparameters, lifecycle
from enginehouse.metadata.records import JobRecord, NewEvent
from enginehouse.schemas.ml_v1 import HyperparameterSpec, Job
from enginehouse.schemas.wire import from_builtins, to_builtins

_FIELD = "training_input.hyperparameters"
STEERABLE = {
    f"{_FIELD}.{field}": field
    for field in ("max_trials", "max_parallel_trials", "max_failed_trials", "enable_trial_early_stopping", "params")
}
"""Path in an update mask → field of HyperparameterSpec."""


def steer(old: JobRecord, wanted: Job, paths: Collection[str]) -> tuple[JobRecord, list[NewEvent]]:
    """The job with what `paths` name taken from `wanted`.

    Raises:
        InvalidArgument: a field is wrong, or leaves out what trials may have been given.
        FailedPrecondition: the job tunes nothing, or has ended.
    """
    if not old.is_tuning:
        raise FailedPrecondition(f"The job {old.name.job_id!r} tunes no hyperparameters.", field="update_mask")
    if old.is_terminal or old.state == "CANCELLING":
        raise FailedPrecondition(
            f"The job is {old.state}. Go on with its study in a new one: resumePreviousJobId {old.name.job_id}.",
            field="name",
        )
    if wanted.training_input is None or wanted.training_input.hyperparameters is None:
        raise InvalidArgument("The field is required: say what to change.", field=f"job.{_FIELD}")
    given = wanted.training_input.hyperparameters
    request = old.request["trainingInput"]
    before = from_builtins(HyperparameterSpec, request["hyperparameters"])
    after = from_builtins(HyperparameterSpec, request["hyperparameters"])
    for path in paths:
        setattr(after, STEERABLE[path], getattr(given, STEERABLE[path]))
    found = [*hyperparameters.faults(after)] or [*hyperparameters.widening_faults(after, before)]
    if found:
        raise InvalidArgument(violations=[FieldViolation(f"job.{_FIELD}.{path}", text) for path, text in found])
    lines = [lifecycle.log(f"{_told(path, after)} from now on.") for path in sorted(paths)]
    changed = {**request, "hyperparameters": to_builtins(after)}
    return replace(old, request={**old.request, "trainingInput": changed}), lines


def _told(path: str, spec: HyperparameterSpec) -> str:
    match STEERABLE[path]:
        case "max_trials":
            return f"There are {hyperparameters.max_trials(spec)} trials"
        case "max_parallel_trials":
            return f"{hyperparameters.max_parallel_trials(spec)} trials run at a time"
        case "max_failed_trials":
            return f"The job fails with {spec.max_failed_trials or 'the usual number of'} failed trials"
        case "enable_trial_early_stopping":
            return f"Trials are {'' if spec.enable_trial_early_stopping else 'not '}stopped early"
        case _:
            return f"New ranges count for {', '.join(param.parameter_name for param in spec.params)}"
