"""What one run of `mle` was told by its global flags, and what commands make of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from enginehouse.core.settings import Settings
    from enginehouse.sdk.client import Client


@dataclass
class Invocation:
    """The global flags; None where one was not given."""

    project: str | None = None
    data_dir: str | None = None
    url: str | None = None
    format: str | None = None
    quiet: bool = False
    verbosity: str = "warning"
    context: click.Context | None = None
    """The command that runs, for error messages."""

    @property
    def command(self) -> str:
        """The command as gcloud writes it in errors: `mle.jobs.submit.training`."""
        return self.context.command_path.replace(" ", ".") if self.context else "mle"

    def settings(self, *, file: Path | None = None, **flags: Any) -> Settings:
        """The settings in force, with the global flags and `flags` as the strongest source."""
        from enginehouse.core.settings import load_settings

        return load_settings({"data_dir": self.data_dir, "project": self.project, **flags}, file=file)

    def client(self) -> Client:
        """A client of the engine that the flags, the environment or the data directory name."""
        from enginehouse.sdk.client import connect

        return connect(self.url, data_dir=self.data_dir, project=self.project)

    def say(self, text: str, *, newline: bool = True) -> None:
        """Tell the user what goes on: on stderr, unless --quiet."""
        if not self.quiet:
            click.echo(text, err=True, nl=newline)


def pass_invocation(function: Callable[..., None]) -> Callable[..., None]:
    """A decorator: gives the command its `Invocation` as the first argument."""
    return click.make_pass_decorator(Invocation)(function)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a global flag wherever in the command line it stood; the last one wins."""
    if value is not None and value is not False and parameter.name is not None:
        setattr(context.find_root().obj, parameter.name, value)


def _check_format(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None and value not in ("json", "yaml", "table"):
        fields = value.removeprefix("value(").removesuffix(")")
        if len(fields) != len(value) - len("value()") or not fields:
            raise click.BadParameter(
                f"{value!r} is not one of json, yaml, table, value(FIELD,...).", context, parameter
            )
    _remember(context, parameter, value)


_option = functools.partial(click.Option, expose_value=False)

GLOBAL_OPTIONS: tuple[click.Option, ...] = (
    _option(
        ["--project"],
        metavar="PROJECT",
        callback=_remember,
        help="Project to work in (default: the setting `project`).",
    ),
    _option(
        ["--data-dir"],
        metavar="DIR",
        callback=_remember,
        help="Data directory of the engine to use (default: ENGINEHOUSE_DATA_DIR or ~/.enginehouse).",
    ),
    _option(
        ["--url"],
        metavar="URL",
        callback=_remember,
        help="Address of the engine to use, in place of the data directory (default: ENGINEHOUSE_URL).",
    ),
    _option(
        ["--format"],
        metavar="FORMAT",
        callback=_check_format,
        help="How to print the result: json, yaml, table or value(FIELD,...).",
    ),
    _option(["-q", "--quiet"], is_flag=True, callback=_remember, help="Print results and errors only."),
    _option(
        ["--verbosity"],
        type=click.Choice(["debug", "info", "warning", "error"]),
        callback=_remember,
        help="debug also shows where an error arose.",
    ),
)
