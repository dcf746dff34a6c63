"""Questions before something is lost, and dots while the engine works."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from enginehouse.cli.invocation import Invocation

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client


def confirm(invocation: Invocation, what: str) -> None:
    """Ask before something can't be undone; a script (no terminal, or --quiet) is not asked."""
    if invocation.quiet or not sys.stdin.isatty():
        return
    click.echo(what, err=True)
    click.confirm("Do you want to continue", default=True, abort=True, err=True)


def wait_for(invocation: Invocation, client: Client, operation: Mapping[str, Any], title: str) -> dict[str, Any]:
    """Wait for an operation as gcloud shows it: `Creating version......done.`

    Returns:
        The operation's response.

    Raises:
        EngineError: the operation's error, after the line has ended with `failed.`
    """
    invocation.say(f"{title}...", newline=False)
    try:
        response = client.operations.wait(operation, on_poll=lambda: invocation.say(".", newline=False))
    except BaseException:
        invocation.say("failed.")
        raise
    invocation.say("done.")
    return response
