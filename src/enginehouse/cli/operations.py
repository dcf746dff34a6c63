"""`mle operations`: list, describe, wait, cancel."""

from __future__ import annotations

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.waiting import wait_for


@click.group(cls=Group, examples="mle operations list")
def operations() -> None:
    """Look at long-running operations."""


@operations.command("list", examples="mle operations list --format json")
@pass_invocation
def list_operations(invocation: Invocation) -> None:
    """List operations, newest first."""
    from enginehouse.cli.output import field, last_part, print_list

    columns = [
        ("NAME", last_part("name")),
        ("OPERATION_TYPE", field("metadata.operationType")),
        ("DONE", lambda row: bool(row.get("done"))),
    ]
    print_list(invocation, invocation.client().operations.list(), columns)


@operations.command(examples="mle operations describe create_iris_v1-1700000000000")
@click.argument("operation")
@pass_invocation
def describe(invocation: Invocation, operation: str) -> None:
    """Show an operation."""
    from enginehouse.cli.output import print_resource

    print_resource(invocation, invocation.client().operations.get(operation))


@operations.command(examples="mle operations wait create_iris_v1-1700000000000")
@click.argument("operation")
@pass_invocation
def wait(invocation: Invocation, operation: str) -> None:
    """Wait until an operation is done, then show it; an error of the operation is this command's error."""
    from enginehouse.cli.output import print_resource

    client = invocation.client()
    wait_for(invocation, client, client.operations.get(operation), f"Waiting for operation [{operation}]")
    print_resource(invocation, client.operations.get(operation))


@operations.command(examples="mle operations cancel create_iris_v1-1700000000000")
@click.argument("operation")
@pass_invocation
def cancel(invocation: Invocation, operation: str) -> None:
    """Ask an operation to stop."""
    invocation.client().operations.cancel(operation)
    invocation.say(f"Canceling operation [{operation}]...")
