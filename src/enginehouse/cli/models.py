"""`mle models`: create, list, describe, update, traffic, set-traffic, delete."""

from __future__ import annotations

from typing import Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.body import BodyFlag, build, comma_list, flags, mapping
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.cli.jobs import changed_labels
from enginehouse.cli.names import resource_id
from enginehouse.cli.waiting import confirm, wait_for

MODEL_FLAGS: tuple[BodyFlag, ...] = (
    BodyFlag("--regions", "regions", "Region to name in the model (default: us-central1).", comma_list, "REGION"),
    BodyFlag("--description", "description", "What the model is for."),
    BodyFlag("--labels", "labels", "Labels of the model.", mapping, "KEY=VALUE,..."),
    BodyFlag("--enable-logging", "onlinePredictionLogging", "Log each prediction request.", switch=True),
    BodyFlag(
        "--enable-console-logging",
        "onlinePredictionConsoleLogging",
        "Log what the model's code prints.",
        switch=True,
    ),
)


@click.group(cls=Group, examples="mle models create iris\nmle models list")
def models() -> None:
    """Manage models."""


@models.command(examples="mle models create iris --regions us-central1 --description 'Iris classes'")
@click.argument("model")
@flags(MODEL_FLAGS)
@click.option("--region", metavar="REGION", help="The same as --regions.")
@pass_invocation
def create(invocation: Invocation, model: str, region: str | None, **given: Any) -> None:
    """Create a model, a name that versions are deployed under."""
    from enginehouse.core.names import check_resource_id

    check_resource_id(model, kind="model", field="model.name")
    body = build({"name": model}, MODEL_FLAGS, given)
    body.setdefault("regions", [region if region and region != "global" else "us-central1"])
    created = invocation.client().models.create(body)
    invocation.say(f"Created ml engine model [{created.get('name', model)}].")


@models.command("list", examples="mle models list\nmle models list --format json")
@pass_invocation
def list_models(invocation: Invocation) -> None:
    """List models with their default versions."""
    from enginehouse.cli.output import last_part, print_list

    columns = [("NAME", last_part("name")), ("DEFAULT_VERSION_NAME", last_part("defaultVersion.name"))]
    print_list(invocation, invocation.client().models.list(), columns)


@models.command(examples="mle models describe iris")
@click.argument("model")
@pass_invocation
def describe(invocation: Invocation, model: str) -> None:
    """Show a model."""
    from enginehouse.cli.output import print_resource

    model_id = resource_id(invocation, model)
    print_resource(invocation, invocation.client().models.get(model_id))


@models.command(
    examples="""
        mle models update iris --description 'All three classes' --update-labels stage=live
        mle models update iris --enable-logging
    """
)
@click.argument("model")
@click.option("--description", metavar="TEXT", help="What the model is for.")
@click.option("--update-labels", metavar="KEY=VALUE,...", help="Add these labels, or change their values.")
@click.option("--remove-labels", metavar="KEY,...", help="Remove these labels.")
@click.option("--clear-labels", is_flag=True, help="Remove all labels first.")
@click.option("--enable-logging/--no-enable-logging", default=None, help="Log each prediction request.")
@click.option(
    "--enable-console-logging/--no-enable-console-logging", default=None, help="Log what the model's code prints."
)
@pass_invocation
def update(
    invocation: Invocation,
    model: str,
    description: str | None,
    update_labels: str | None,
    remove_labels: str | None,
    clear_labels: bool,
    enable_logging: bool | None,
    enable_console_logging: bool | None,
) -> None:
    """Change a model's description, labels or logs."""
    model_id = resource_id(invocation, model)
    client = invocation.client()
    given = {
        "description": description,
        "onlinePredictionLogging": enable_logging,
        "onlinePredictionConsoleLogging": enable_console_logging,
    }
    change: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not change or update_labels or remove_labels or clear_labels:
        current = client.models.get(model_id)
        change["labels"] = changed_labels(invocation, current, update_labels, remove_labels, clear_labels)
    operation = client.models.patch(model_id, change, list(change))
    wait_for(invocation, client, operation, f"Updating model [{model_id}]")


@models.command(examples="mle models traffic iris")
@click.argument("model")
@pass_invocation
def traffic(invocation: Invocation, model: str) -> None:
    """Show how requests without a version are shared out to the model's versions, and why."""
    from enginehouse.cli.output import print_resource

    print_resource(invocation, invocation.client().models.traffic(resource_id(invocation, model)))


@models.command(
    "set-traffic",
    examples="""
        mle models set-traffic iris v1=90 v2=10
        mle models set-traffic iris v1=0 v2=100 --max-error-increase 0.01 --max-latency-factor 1.5
        mle models set-traffic iris
    """,
)
@click.argument("model")
@click.argument("shares", nargs=-1, metavar="[VERSION=PERCENT]...")
@click.option("--max-error-increase", type=float, metavar="SHARE", help="Take back beyond it (default: 0.05).")
@click.option("--max-latency-factor", type=float, metavar="FACTOR", help="Of the 95th percentile (default: 2).")
@click.option("--min-requests", type=int, metavar="N", help="Before a version is judged (default: 50).")
@pass_invocation
def set_traffic(invocation: Invocation, model: str, shares: tuple[str, ...], **limits: float | None) -> None:
    """Share out requests without a version to several versions; without shares all go to the default version.

    A version gets its share once its model server is ready. One that is worse than the default version (more errors,
    much slower) is taken back by itself.
    """
    from enginehouse.cli.output import print_resource

    percent = {}
    for text in shares:
        version, _, number = text.partition("=")
        if not version or not number.removesuffix("%").isdigit():
            raise click.UsageError(f"{text!r} is no share; write VERSION=PERCENT, such as v2=10.")
        percent[version] = int(number.removesuffix("%"))
    given = {name: value for name, value in limits.items() if value is not None}
    client = invocation.client()
    print_resource(invocation, client.models.set_traffic(resource_id(invocation, model), percent, given))


@models.command(examples="mle models delete iris --quiet")
@click.argument("model")
@pass_invocation
def delete(invocation: Invocation, model: str) -> None:
    """Delete a model that has no versions."""
    model_id = resource_id(invocation, model)
    confirm(invocation, f"This will delete model [{model_id}].")
    client = invocation.client()
    wait_for(invocation, client, client.models.delete(model_id), f"Deleting model [{model_id}]")
