"""Errors as people read them: `ERROR: (mle.jobs.submit.training) STATUS: message`, then the flag to blame."""

from __future__ import annotations

import traceback

import click

from enginehouse.cli.invocation import Invocation
from enginehouse.core.errors import EngineError

_FLAGS = {
    "python_module": "--module-name",
    "package_uris": "--packages",
    "deployment_uri": "--origin",
    "args": "USER_ARGS",
    "job_id": "JOB",
}
"""Fields of the API that have another name on the command line."""


def report(invocation: Invocation, error: BaseException) -> int:
    """Print an error on stderr and give the exit code for it."""
    if invocation.verbosity == "debug":
        traceback.print_exception(error)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        click.echo("Interrupted.", err=True)
        return 130
    if isinstance(error, click.UsageError):
        return _report_usage(invocation, error)
    if isinstance(error, click.ClickException):
        _print(invocation, error.format_message())
    elif isinstance(error, EngineError):
        _print(invocation, f"{error.status}: {error.message}")
        for violation in error.violations:
            if flag := _flag(invocation, violation.field):
                click.echo(f"  {violation.field} is set by {flag}.", err=True)
    elif isinstance(error, OSError) and error.filename is not None:
        _print(invocation, f"{error.strerror}: {error.filename}")
    elif isinstance(error, OSError):
        _print(invocation, str(error))
    else:
        text = str(error).strip() or "no message"
        _print(invocation, f"INTERNAL: {type(error).__name__}: {text}")
        click.echo("  This is a fault of mle; --verbosity debug shows where it arose.", err=True)
    return 1


def _report_usage(invocation: Invocation, error: click.UsageError) -> int:
    context = error.ctx
    command = context.command_path if context is not None else "mle"
    click.echo(f"ERROR: ({command.replace(' ', '.')}) {error.format_message()}", err=True)
    if context is not None:
        click.echo(context.get_usage(), err=True)
    click.echo(f"Try: {command} --help", err=True)
    return 2


def _print(invocation: Invocation, text: str) -> None:
    click.echo(f"ERROR: ({invocation.command}) {text}", err=True)


def _flag(invocation: Invocation, field: str) -> str | None:
    """The flag or argument of the running command that sets a field of the API, if it has one."""
    if invocation.context is None:
        return None
    last = field.rpartition(".")[2]
    candidate = _FLAGS.get(last, "--" + last.replace("_", "-"))
    for parameter in invocation.context.command.params:
        if candidate in parameter.opts or candidate == parameter.make_metavar(invocation.context):
            return candidate
    return None
