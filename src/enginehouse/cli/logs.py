"""A job's log on the terminal, line by line as gcloud prints it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.invocation import Invocation
from enginehouse.core.errors import EngineError

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client

_COLOURS = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}


def format_entry(entry: Mapping[str, Any], *, multiline: bool) -> list[str]:
    """One log entry as lines `SEVERITY<TAB>TIME<TAB>TASK<TAB>TRIAL<TAB>MESSAGE`.

    Args:
        multiline: keep a message of several lines in one piece; otherwise every line gets the whole prefix.
    """
    time = str(entry.get("timestamp", ""))[:19].replace("T", " ")
    severity = entry.get("severity") or "DEFAULT"
    prefix = f"{severity}\t{time} +0000\t{entry.get('taskName') or 'unknown_task'}\t{entry.get('trialId') or ''}\t"
    message = str(entry.get("message", ""))
    return [prefix + line for line in ([message] if multiline else message.split("\n"))]


def stream(
    invocation: Invocation,
    client: Client,
    job_id: str,
    *,
    to_stderr: bool,
    multiline: bool = False,
    task_name: str | None = None,
) -> None:
    """Print a job's log from the start until the job has ended; an interrupt ends the printing, not the job."""
    from enginehouse.sdk.logs import follow

    out = sys.stderr if to_stderr else sys.stdout

    def tell_lost(error: EngineError) -> None:
        invocation.say(f"{error.message}\nWaiting for the engine; the job goes on meanwhile.")

    try:
        for entry in follow(client.jobs, job_id, on_lost=tell_lost):
            if task_name is not None and entry.get("taskName") != task_name:
                continue
            colour = _COLOURS.get(str(entry.get("severity")))
            for line in format_entry(entry, multiline=multiline):
                click.echo(click.style(line, fg=colour) if colour else line, file=out)
    except KeyboardInterrupt:
        invocation.say(f"\nStopped following job [{job_id}]; it goes on. To follow it again:")
        invocation.say(f"\n  $ mle jobs stream-logs {job_id}")
        raise click.exceptions.Exit(130) from None
