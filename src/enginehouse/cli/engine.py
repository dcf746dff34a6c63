"""`mle up`, `down`, `status`, `settings`, `version`: the engine itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from enginehouse import __version__
from enginehouse.cli.base import Command
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.settings import SETTINGS, Setting, Settings

_GLOBAL = ("data_dir", "project")
"""Settings that have a global flag."""

command = functools.partial(click.command, cls=Command)


def setting_flags(function: Callable[..., None]) -> Callable[..., None]:
    """A decorator: one flag per setting."""
    for setting in reversed([each for each in SETTINGS if each.name not in _GLOBAL]):
        function = _setting_flag(setting)(function)
    return function


def _setting_flag(setting: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind: Any = str if setting.type is Path else setting.type
    shown = f" (default: {setting.default})" if setting.default != "" else ""
    flag = f"--{setting.name.replace('_', '-')}"
    if setting.flag_value is not None:  # the flag may stand alone
        return click.option(flag, setting.name, is_flag=False, flag_value=setting.flag_value, help=setting.doc)
    return click.option(flag, setting.name, type=kind, help=f"{setting.doc}{shown}")


@command(
    examples="""
        mle up
        mle up --detach
        mle up --detach --data-dir /srv/enginehouse --port 0
    """
)
@click.option("--detach", is_flag=True, help="Run in the background; its log is engine.log in the data directory.")
@click.option("--settings", "file", metavar="FILE", help="TOML file (default: settings.toml in the data directory).")
@setting_flags
@pass_invocation
def up(invocation: Invocation, detach: bool, file: str | None, **given: Any) -> None:
    """Start an engine: in the foreground until Ctrl-C, or in the background."""
    settings = invocation.settings(file=Path(file).expanduser() if file else None, **given)
    if detach:
        from enginehouse.cli.detach import start_detached

        engine = start_detached(settings, _arguments(invocation, file, given))
        invocation.say(f"The engine is running on {settings.data_dir} (pid {engine.pid}).")
        if engine.grpc_address:
            invocation.say(f"Predictions by gRPC: {engine.grpc_address}")
        click.echo(engine.url)
    else:
        from enginehouse.main import serve

        invocation.say(f"Starting an engine on {settings.data_dir}; Ctrl-C stops it.")
        serve(settings)


def _arguments(invocation: Invocation, file: str | None, given: dict[str, Any]) -> list[str]:
    """The command line of the same `mle up` without --detach, every path absolute."""
    arguments = ["up"]
    for name, value in [("data_dir", invocation.data_dir), ("project", invocation.project), *given.items()]:
        if value is not None:
            text = str(Path(value).expanduser().absolute()) if name.endswith("_dir") else str(value)
            arguments.append(f"--{name.replace('_', '-')}={text}")
    if file is not None:
        arguments.append(f"--settings={Path(file).expanduser().absolute()}")
    return arguments


@command(examples="mle down\nmle down --data-dir /srv/enginehouse")
@click.option("--timeout", type=float, default=60.0, show_default=True, metavar="SECONDS", help="How long to wait.")
@pass_invocation
def down(invocation: Invocation, timeout: float) -> None:
    """Stop the engine of the data directory; its jobs run on and are taken up by the next one."""
    from enginehouse.cli.detach import stop

    settings = invocation.settings()
    engine = stop(settings, timeout_s=timeout)
    invocation.say(f"The engine on {settings.data_dir} (pid {engine.pid}) has stopped.")


@command(examples="mle status\nmle status --format json")
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show the engine and what it is doing; exit 1 when none is running."""
    from enginehouse.cli.output import print_resource

    print_resource(invocation, invocation.client().engine.status())


@command(examples="mle settings\nmle settings --format json")
@pass_invocation
def settings(invocation: Invocation) -> None:
    """List the settings in force: the running engine's, or those that one would start with."""
    from enginehouse.cli.output import field, print_list
    from enginehouse.core.errors import Unavailable

    try:
        rows = invocation.client().engine.settings()
    except Unavailable:
        invocation.say("No engine is running; these are the settings that one would start with.")
        rows = _local_rows(invocation.settings())
    print_list(invocation, rows, [("NAME", field("name")), ("VALUE", field("value")), ("MEANING", field("doc"))])


def _local_rows(settings: Settings) -> list[dict[str, Any]]:
    values = {each.name: getattr(settings, each.name) for each in SETTINGS}
    values["token"] = "(set)" if settings.token else ""
    return [
        {
            "name": each.name,
            "value": str(values[each.name]) if each.type is Path else values[each.name],
            "doc": each.doc,
        }
        for each in SETTINGS
    ]


@command(examples="mle version")
@pass_invocation
def version(invocation: Invocation) -> None:
    """Print the versions of mle and of the running engine."""
    from enginehouse.cli.output import print_resource
    from enginehouse.core.errors import EngineError

    told = {"mle": __version__}
    try:
        told["engine"] = str(invocation.client().engine.status()["version"])
    except EngineError:
        told["engine"] = "not running"
    print_resource(invocation, told)
