"""What the API asks of jobs: create, get, list, cancel, patch.

In: messages of ml v1. Out: messages of ml v1 or core errors. Thread-safe; every call is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from enginehouse.core import ids, names
from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, InvalidArgument
from enginehouse.core.filters import EVERYTHING, Filter
from enginehouse.core.names import JobName
from enginehouse.core.repeats import creation_key, is_repeat
from enginehouse.core.units import format_time
from enginehouse.jobs import lifecycle
from enginehouse.jobs.steering import STEERABLE, steer
from enginehouse.jobs.validate import Validator
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.paging import filtered_page
from enginehouse.metadata.records import JobRecord, NewEvent
from enginehouse.schemas.ml_v1 import Job, ListJobsResponse
from enginehouse.schemas.wire import from_builtins, to_builtins

CANCELLED_BY_USER = "The job was cancelled by the user."
_OUTPUT_ONLY = (
    "create_time",
    "start_time",
    "end_time",
    "state",
    "error_message",
    "training_output",
    "prediction_output",
)


class JobService:
    """The jobs of all projects.

    Args:
        wake: called after each change that the reconciler should see at once.
        position: tells the place of a job in the queue, 0 for one that is not there.
        tuning_output: makes the trainingOutput of a tuning job that has not ended.
    """

    def __init__(
        self,
        store: MetadataStore,
        validator: Validator,
        clock: Clock,
        *,
        wake: Callable[[], None],
        position: Callable[[JobName], int],
        tuning_output: Callable[[JobRecord], dict[str, Any]],
    ) -> None:
        self._store = store
        self._validator = validator
        self._clock = clock
        self._wake = wake
        self._position = position
        self._tuning_output = tuning_output

    def create(self, project: str, job: Job, caller: str = "") -> Job:
        """Check and queue a job; asked for the same again, give the job that is there (see core/repeats.py).

        Args:
            caller: names one run of a client, where it tells.

        Raises:
            InvalidArgument, FailedPrecondition: see `Validator`; nothing is stored.
            AlreadyExists: the id was used before in this project.
        """
        names.check_project_id(project)
        plan = self._validator.validate(project, job)
        for name in _OUTPUT_ONLY:
            setattr(job, name, getattr(Job(), name))
        job.etag = ""
        scheduling = job.training_input.scheduling if job.training_input else None
        request = to_builtins(job)
        record = JobRecord(
            name=JobName(project, job.job_id),
            state="QUEUED",
            request=request,
            labels=job.labels,
            priority=scheduling.priority if scheduling else 0,
            create_time_ns=self._clock.time_ns(),
            plan=plan.to_json(),
            creation_key=creation_key(caller, request),
            is_tuning=job.training_input is not None and job.training_input.hyperparameters is not None,
        )
        lines = [
            lifecycle.log(lifecycle.VALIDATING),
            lifecycle.log(lifecycle.VALIDATED),
            lifecycle.log(lifecycle.queued_line(job.job_id)),
        ]
        try:
            created = self._store.create_job(record, [NewEvent("state", "created", data={"to": "QUEUED"}), *lines])
        except AlreadyExists:
            created = self._store.get_job(record.name)
            # Who comes back under no name after the job has ended means a new one.
            if not is_repeat(record, created) or (created.is_terminal and not caller):
                raise
        self._wake()
        return self._message(created)

    def get(self, name: JobName) -> Job:
        return self._message(self._store.get_job(name))

    def list(
        self, project: str, *, page_size: int, page_token: str = "", wanted: Filter = EVERYTHING
    ) -> ListJobsResponse:
        """Newest first, those that pass the filter."""
        jobs, token = filtered_page(
            lambda token: self._store.list_jobs(project, page_size=page_size, page_token=token),
            self._message,
            wanted,
            page_size=page_size,
            page_token=page_token,
        )
        return ListJobsResponse(jobs=jobs, next_page_token=token)

    def cancel(self, name: JobName, *, reason: str = CANCELLED_BY_USER) -> None:
        """Ask a job to end. A job that has ended already, or is about to, is left as it is."""
        self._store.change_job(name, lambda job: lifecycle.cancel(job, reason=reason, now_ns=self._clock.time_ns()))
        self._wake()

    def patch(self, name: JobName, job: Job, update_mask: frozenset[str]) -> Job:
        """Change the labels, guarded by `etag` where one is sent; of a tuning job that goes on its search, too.

        Raises:
            InvalidArgument: the mask is empty or names what can't be changed, or a range would become narrower.
            FailedPrecondition: the job tunes nothing, or has ended.
            Aborted: the job has changed since the etag was read.
        """
        steering = update_mask & STEERABLE.keys()
        if not update_mask or update_mask - {"labels", "etag"} - steering:
            steerable = ", ".join(sorted(STEERABLE))
            raise InvalidArgument(
                f"Only labels and etag of a job can be updated; of a tuning job also {steerable}.",
                field="update_mask",
            )
        names.check_labels(job.labels, field="job.labels")

        def change(old: JobRecord) -> tuple[JobRecord, list[NewEvent]]:
            ids.check_etag(job.etag, old.revision)
            labels = job.labels if "labels" in update_mask else old.labels
            changed, events = steer(old, job, steering) if steering else (old, [])
            return replace(changed, labels=labels), events

        changed = self._store.change_job(name, change)
        if steering:
            self._wake()
        return self._message(changed)

    def _message(self, job: JobRecord) -> Job:
        if job.is_tuning and not job.is_terminal:
            job = replace(job, output=self._tuning_output(job))
        return job_message(job, self._position(job.name))


def job_message(job: JobRecord, position: int) -> Job:
    """A job as the API shows it."""
    message = from_builtins(Job, {**_shown(job), "jobPosition": str(position)})
    message.etag = ids.etag(job.revision)
    return message


def _shown(job: JobRecord) -> dict[str, Any]:
    times = {
        "createTime": job.create_time_ns,
        "startTime": job.start_time_ns,
        "endTime": job.end_time_ns,
    }
    return {
        **job.request,
        **{key: format_time(value) for key, value in times.items() if value is not None},
        "state": job.state,
        "labels": job.labels,
        "errorMessage": job.error_message,
        ("predictionOutput" if "predictionInput" in job.request else "trainingOutput"): job.output or None,
    }
