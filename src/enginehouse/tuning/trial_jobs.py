"""A trial as a job of its own: the record that the queue and the reconciler of jobs take for any other.

In: a tuning job and a trial of its study. Out: the trial's `JobRecord`, and the names of one in terms of the other.
"""

from __future__ import annotations

from enginehouse.core.names import JobName, ObjectUri
from enginehouse.jobs.hyperparameters import flags_of
from enginehouse.metadata.records import JobRecord, TrialRecord
from enginehouse.tuning.job_study import texts_of

_OF_THE_JOB = ("maxWaitTime", "maxRunningTime")
"""Limits that hold for the tuning job as a whole, not for a trial that waits until others have ended."""


def trial_job_name(job: JobName, trial: TrialRecord) -> JobName:
    """The name of the job that runs a trial."""
    return job.trial(str(trial.name.trial_id))


def job_dir_of(job: JobRecord, trial_id: str) -> str:
    """`<jobDir>/<trialId>`; empty for a job without a job-dir."""
    job_dir = job.request["trainingInput"].get("jobDir", "")
    return str(ObjectUri.parse(job_dir).join(trial_id)) if job_dir else ""


def trial_job(job: JobRecord, trial: TrialRecord, now_ns: int) -> JobRecord:
    """The job of a trial: its tuning job's plan, with parameters behind the arguments and a job-dir of its own."""
    name = trial_job_name(job.name, trial)
    given = job.request["trainingInput"]
    training_input = {
        **given,
        "args": [*given.get("args", ()), *flags_of(texts_of(trial.parameters))],
        "scheduling": {key: value for key, value in given.get("scheduling", {}).items() if key not in _OF_THE_JOB},
    }
    if job_dir := job_dir_of(job, name.trial_id):
        training_input["jobDir"] = job_dir
    return JobRecord(
        name=name,
        state="QUEUED",
        request={**job.request, "trainingInput": training_input},
        labels=job.labels,
        priority=job.priority,
        create_time_ns=now_ns,
        plan=job.plan,
    )
