"""The kinds of click command that `mle` is made of: global flags anywhere, examples, lazy groups, user arguments."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from enginehouse.cli.invocation import GLOBAL_OPTIONS, Invocation

HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class _Common(click.Command):
    """Takes the global flags and shows them in one line, and its examples at the end of its help."""

    def __init__(self, *args: Any, examples: str = "", **attributes: Any) -> None:
        attributes.setdefault("context_settings", HELP_NAMES)
        super().__init__(*args, **attributes)
        self.examples = [" ".join(line.split()) for line in examples.strip().splitlines()]
        own = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in GLOBAL_OPTIONS if own.isdisjoint(option.opts)]

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Invocation).context = ctx
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [p for p in self.get_params(ctx) if p not in GLOBAL_OPTIONS and not isinstance(p, click.Argument)]
        records = [record for record in (p.get_help_record(ctx) for p in own) if record is not None]
        with formatter.section("Flags"):
            formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        names = ", ".join(max(option.opts, key=len) for option in GLOBAL_OPTIONS)
        formatter.write_paragraph()
        formatter.write_text(f"Global flags, told by `mle --help`: {names}.")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Command(_Common):
    """A command.

    Args:
        examples: command lines, one per line, shown in its help and in the docs.
        user_args: everything after a lone `--` is kept apart and given to the function as `user_args`.
    """

    def __init__(self, *args: Any, examples: str, user_args: bool = False, **attributes: Any) -> None:
        super().__init__(*args, examples=examples, **attributes)
        self.user_args = user_args

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not self.user_args:
            return super().parse_args(ctx, args)
        cut = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:cut])
        ctx.params["user_args"] = tuple(args[cut + 1 :])
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return super().collect_usage_pieces(ctx) + (["[-- USER_ARGS...]"] if self.user_args else [])


class Group(_Common, click.Group):
    """A group whose commands are in its own file."""

    command_class = Command
    group_class = type


class Child(NamedTuple):
    """A command of a lazy group: where it is and its line in the group's help."""

    target: str
    """`module:attribute`"""
    help: str


class LazyGroup(Group):
    """A group that imports a command's file only to run that command or to show its help."""

    def __init__(self, *args: Any, children: Mapping[str, Child], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.children = dict(children)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.children)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        child = self.children.get(cmd_name)
        if child is None:
            return None
        module, _, attribute = child.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        records = [record for record in (p.get_help_record(ctx) for p in self.get_params(ctx)) if record is not None]
        with formatter.section("Global flags"):
            formatter.write_dl(records)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, child.help) for name, child in self.children.items()])
