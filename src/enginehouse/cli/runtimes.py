"""`mle runtimes`: which there are, and building one before the first job needs it."""

from __future__ import annotations

from typing import Any

import click

from enginehouse.cli.base import Group
from enginehouse.cli.invocation import Invocation, pass_invocation


@click.group(cls=Group, examples="mle runtimes list\nmle runtimes build 2.21")
def runtimes() -> None:
    """List and build runtimes."""


@runtimes.command("list", examples="mle runtimes list")
@pass_invocation
def list_runtimes(invocation: Invocation) -> None:
    """List the runtimes that jobs and versions may name: the running engine's, or those of this installation."""
    from enginehouse.cli.output import field, print_list
    from enginehouse.core.errors import Unavailable

    try:
        rows = invocation.client().engine.runtimes()
    except Unavailable:
        rows = _local_rows(invocation)
    columns = [
        ("RUNTIME", field("name")),
        ("PYTHON", lambda row: ", ".join(row.get("pythonVersions", []))),
        ("BUILT", field("built")),
        ("DESCRIPTION", field("description")),
    ]
    print_list(invocation, rows, columns)


def _local_rows(invocation: Invocation) -> list[dict[str, Any]]:
    from enginehouse.core.errors import InvalidArgument
    from enginehouse.runtimes.cache import RuntimeCache
    from enginehouse.runtimes.catalogue import Catalogue

    catalogue = Catalogue.load()
    cache = RuntimeCache(invocation.settings().runtimes_dir, None)

    def built(name: str) -> bool:
        try:
            return cache.ready(catalogue.resolve(name)) is not None
        except InvalidArgument:  # this host has no Python for it
            return False

    return [
        {
            "name": each.name,
            "aliases": list(each.aliases),
            "frameworks": dict(each.frameworks),
            "pythonVersions": list(each.python_versions),
            "description": each.description,
            "built": built(each.name),
        }
        for each in catalogue.runtimes()
    ]


@runtimes.command(examples="mle runtimes build 2.21\nmle runtimes build scikit-learn-1.9 --python-version 3.12")
@click.argument("runtime")
@click.option("--python-version", metavar="X.Y", help="Python of the runtime (default: the one a job would get).")
@pass_invocation
def build(invocation: Invocation, runtime: str, python_version: str | None) -> None:
    """Build a runtime now, on this machine, so that no job has to wait for it."""
    from enginehouse.runtimes.cache import RuntimeCache
    from enginehouse.runtimes.catalogue import Catalogue
    from enginehouse.sdk.packaging import find_uv

    resolution = Catalogue.load().resolve(runtime, python_version)
    cache = RuntimeCache(invocation.settings().runtimes_dir, find_uv())
    environment = cache.ensure(resolution, invocation.say)
    click.echo(environment.python)
