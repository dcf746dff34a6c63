"""`mle env` and `mle run`: let Google's own clients find the engine, in this shell or for one command."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from enginehouse.gateway.environment import Change

command = functools.partial(click.command, cls=Command)


@command(
    examples="""
        mle env
        mle env --unset
        mle env --shell fish
        mle env --plain
    """
)
@click.option("--plain", is_flag=True, help="Endpoint overrides only, without proxy and certificates.")
@click.option("--unset", is_flag=True, help="Put everything back as it was.")
@click.option(
    "--shell", type=click.Choice(["bash", "zsh", "fish"]), help="Whose words (default: your login shell's)."
)
@pass_invocation
def env(invocation: Invocation, plain: bool, unset: bool, shell: str | None) -> None:
    """Print what wires a shell: gcloud, gsutil and Google's clients then talk to the engine.

    For the shell to read: eval "$(mle env)", or in fish: mle env | source.
    """
    from enginehouse.gateway.environment import unwire
    from enginehouse.gateway.shells import render, shell_of

    change = unwire(os.environ) if unset else _wire(invocation, plain=plain)
    click.echo(render(change, shell or shell_of(os.environ)), nl=False)
    if sys.stdout.isatty():
        invocation.say('\n# These are for your shell to read: eval "$(mle env)"')


@command(
    user_args=True,
    examples="""
        mle run -- gcloud ai-platform jobs list
        mle run -- gsutil ls
        mle run -- python train.py
    """,
)
@click.option("--plain", is_flag=True, help="Endpoint overrides only, without proxy and certificates.")
@pass_invocation
def run(invocation: Invocation, plain: bool, user_args: tuple[str, ...]) -> None:
    """Run one command wired to the engine: mle run -- COMMAND [ARGS]."""
    if not user_args:
        raise click.UsageError("Name the command after a lone --, such as: mle run -- gcloud ai-platform jobs list")
    environ = _wire(invocation, plain=plain).apply(os.environ)
    try:
        os.execvpe(user_args[0], list(user_args), environ)
    except FileNotFoundError:
        raise click.ClickException(f"There is no command {user_args[0]!r}.") from None


def _wire(invocation: Invocation, *, plain: bool) -> Change:
    """The change of the environment for the engine that the flags name; writes the files that it speaks of."""
    from dataclasses import replace

    from enginehouse.core.errors import FailedPrecondition
    from enginehouse.gateway.clients import prepare_client
    from enginehouse.gateway.environment import wire

    client = invocation.client()
    status = client.engine.status()
    if not plain and not status.get("gatewayUrl"):
        raise FailedPrecondition("The engine runs without its gateway (setting gateway); use: mle env --plain")
    settings = replace(invocation.settings(), data_dir=Path(status["dataDir"]))
    project = invocation.project or os.environ.get("ENGINEHOUSE_PROJECT") or status["project"]
    gateway_url = None if plain else status["gatewayUrl"]
    wiring = prepare_client(settings, project, engine_url=status["url"], gateway_url=gateway_url)
    return wire(wiring, os.environ)
