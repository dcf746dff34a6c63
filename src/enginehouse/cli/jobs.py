"""`mle jobs`: submit, list, describe, trials, stop-trial, cancel, update, stream-logs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.body import comma_list, mapping
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.names import resource_id
from enginehouse.cli.prediction import prediction
from enginehouse.cli.training import training
from enginehouse.core.errors import FailedPrecondition


@click.group(cls=Group, examples="mle jobs submit training --help\nmle jobs list --limit 5")
def jobs() -> None:
    """Submit, watch and cancel jobs."""


@jobs.group(examples="mle jobs submit training --help")
def submit() -> None:
    """Submit a job."""


submit.add_command(training)
submit.add_command(prediction)


@jobs.command("list", examples="mle jobs list\nmle jobs list --filter 'jobId:iris* AND state:FAILED' --format json")
@click.option("--filter", "expression", metavar="EXPRESSION", help="Only these: jobId:iris* AND state:FAILED.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most this many, newest first.")
@pass_invocation
def list_jobs(invocation: Invocation, expression: str | None, limit: int | None) -> None:
    """List jobs, newest first."""
    from enginehouse.cli.output import field, local_time, print_list

    found = itertools.islice(invocation.client().jobs.list(filter=expression), limit)
    columns = [("JOB_ID", field("jobId")), ("STATUS", field("state")), ("CREATED", local_time("createTime"))]
    print_list(invocation, found, columns)


@jobs.command(examples="mle jobs describe iris_1\nmle jobs describe iris_1 --format 'value(state)'")
@click.argument("job")
@pass_invocation
def describe(invocation: Invocation, job: str) -> None:
    """Show a job; while it is in the queue, also why."""
    from enginehouse.cli.output import print_resource

    job_id = resource_id(invocation, job)
    client = invocation.client()
    shown = client.jobs.get(job_id)
    if shown.get("state") == "QUEUED" and (reason := client.engine.waiting_reason(client.project, job_id)):
        shown["waitingReason"] = reason
    print_resource(invocation, shown)


@jobs.command(examples="mle jobs cancel iris_1")
@click.argument("job")
@pass_invocation
def cancel(invocation: Invocation, job: str) -> None:
    """Cancel a job: its processes are asked to end, then killed."""
    job_id = resource_id(invocation, job)
    invocation.client().jobs.cancel(job_id)


@jobs.command(
    examples="""
        mle jobs trials iris_tune
        mle jobs trials iris_tune --plot iris_tune.html
    """
)
@click.argument("job")
@click.option("--plot", metavar="FILE", help="Draw them into a .svg, .html or .png file, too.")
@pass_invocation
def trials(invocation: Invocation, job: str, plot: str | None) -> None:
    """Show the trials of a tuning job, the best first."""
    from enginehouse.cli.output import Column, field, print_list

    job_id = resource_id(invocation, job)
    shown = invocation.client().jobs.get(job_id)
    spec = shown.get("trainingInput", {}).get("hyperparameters")
    if spec is None:
        raise FailedPrecondition(f"{job_id} tunes no hyperparameters.")
    output = shown.get("trainingOutput", {})

    def parameter(name: str) -> Column:
        return name, lambda row: row["hyperparameters"].get(name)

    columns = [
        ("TRIAL_ID", field("trialId")),
        (output.get("hyperparameterMetricTag") or "METRIC", field("finalMetric.objectiveValue")),
        ("STEP", field("finalMetric.trainingStep")),
        ("STATE", lambda row: "STOPPED_EARLY" if row.get("isTrialStoppedEarly") else row.get("state")),
        *(parameter(param["parameterName"]) for param in spec.get("params", ())),
    ]
    print_list(invocation, output.get("trials", ()), columns)
    if plot is not None:
        from enginehouse.cli.chart import draw, render

        Path(plot).expanduser().write_bytes(render(draw(shown), plot))
        invocation.say(f"Wrote {plot}.")


@jobs.command("stop-trial", examples="mle jobs stop-trial iris_tune 3")
@click.argument("job")
@click.argument("trial")
@pass_invocation
def stop_trial(invocation: Invocation, job: str, trial: str) -> None:
    """End one trial of a tuning job early; it keeps what it has reported, and the job goes on."""
    job_id = resource_id(invocation, job)
    invocation.client().jobs.stop_trial(job_id, trial)
    invocation.say(f"Trial {trial} of [{job_id}] is asked to end.")


@jobs.command(
    examples="""
        mle jobs update iris_1 --update-labels owner=ada
        mle jobs update iris_1 --clear-labels
        mle jobs update iris_tune --max-trials 20 --widen learning-rate=0.00001:0.1
    """
)
@click.argument("job")
@click.option("--update-labels", metavar="KEY=VALUE,...", help="Add these labels, or change their values.")
@click.option("--remove-labels", metavar="KEY,...", help="Remove these labels.")
@click.option("--clear-labels", is_flag=True, help="Remove all labels first.")
@click.option("--max-trials", type=int, metavar="N", help="Of a tuning job: make this many trials in all.")
@click.option("--max-parallel-trials", type=int, metavar="N", help="Of a tuning job: run this many at a time.")
@click.option("--max-failed-trials", type=int, metavar="N", help="Of a tuning job: fail with this many failed ones.")
@click.option(
    "--widen",
    multiple=True,
    metavar="NAME=MIN:MAX",
    help="Of a tuning job: a wider range of a parameter, or NAME=VALUE,... for more values. May be repeated.",
)
@pass_invocation
def update(
    invocation: Invocation,
    job: str,
    update_labels: str | None,
    remove_labels: str | None,
    clear_labels: bool,
    **steering: Any,
) -> None:
    """Change a job's labels; add trials to a tuning job, or widen its ranges, while it runs."""
    from enginehouse.cli.steering import steering_change

    job_id = resource_id(invocation, job)
    client = invocation.client()
    shown = client.jobs.get(job_id)
    body, mask = steering_change(shown, **steering)
    if not mask or update_labels or remove_labels or clear_labels:
        body["labels"] = changed_labels(invocation, shown, update_labels, remove_labels, clear_labels)
        mask.append("labels")
    client.jobs.patch(job_id, body, mask)
    invocation.say(f"Updated ml engine job [{job_id}].")


def changed_labels(
    invocation: Invocation,
    resource: dict[str, Any],
    update_labels: str | None,
    remove_labels: str | None,
    clear_labels: bool,
) -> dict[str, str]:
    """A resource's labels after the label flags; a usage error when none was given."""
    if not (update_labels or remove_labels or clear_labels):
        raise click.UsageError(
            "give at least one of --update-labels, --remove-labels, --clear-labels.", invocation.context
        )
    labels: dict[str, str] = {} if clear_labels else dict(resource.get("labels", {}))
    for key in comma_list(remove_labels or ""):
        labels.pop(key, None)
    try:
        labels.update(mapping(update_labels or ""))
    except ValueError as error:
        raise click.UsageError(f"--update-labels: {error}", invocation.context) from None
    return labels


@jobs.command(
    "stream-logs", examples="mle jobs stream-logs iris_1\nmle jobs stream-logs iris_1 --task-name master-replica-0"
)
@click.argument("job")
@click.option("--allow-multiline-logs", is_flag=True, help="Print a message of several lines in one piece.")
@click.option("--task-name", metavar="TASK", help="Only this task's lines: service, master-replica-0, …")
@click.option("--polling-interval", type=float, hidden=True, help="Taken for gcloud's sake; lines come at once.")
@pass_invocation
def stream_logs(
    invocation: Invocation,
    job: str,
    allow_multiline_logs: bool,
    task_name: str | None,
    polling_interval: float | None,
) -> None:
    """Follow a job's log from its start until the job has ended; Ctrl-C stops the following, not the job."""
    from enginehouse.cli.logs import stream

    job_id = resource_id(invocation, job)
    client = invocation.client()
    stream(invocation, client, job_id, to_stderr=False, multiline=allow_multiline_logs, task_name=task_name)
