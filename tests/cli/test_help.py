"""Every command explains itself, and help is quick because little is imported."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from enginehouse.cli.base import Command
from enginehouse.cli.tree import CHILDREN, root


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands and groups below one."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


ALL = dict(walk(root))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_tells_what_it_is_for(path: tuple[str, ...], mle: Callable[..., Any]) -> None:
    result = mle(*path, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: {' '.join(('mle', *path))} ")
    command = ALL[path]
    assert command.help, "a command without a docstring"
    assert command.help.splitlines()[0] in " ".join(result.out.split())
    assert "Examples:\n" in result.out


@pytest.mark.parametrize("path", [path for path, each in ALL.items() if isinstance(each, Command)], ids=" ".join)
def test_examples_parse(path: tuple[str, ...]) -> None:
    """The part after `mle` of each example is a command line that the tree takes."""
    command = ALL[path]
    assert isinstance(command, Command)
    for example in command.examples:
        arguments = shlex.split(example.rpartition(" | ")[2])
        assert arguments[: len(path) + 1] == ["mle", *path], example
        context = click.Context(root, info_name="mle", obj=None)
        context.ensure_object(type("Obj", (), {}))
        command.make_context(path[-1], arguments[len(path) + 1 :], parent=context)


@pytest.mark.parametrize("path", [path for path, each in ALL.items() if isinstance(each, Command)], ids=" ".join)
def test_every_flag_says_what_it_does(path: tuple[str, ...]) -> None:
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts} has no help"
            assert parameter.help.endswith((".", ")", "…")), f"{parameter.opts}: {parameter.help}"


def test_the_root_finds_every_child(mle: Callable[..., Any]) -> None:
    context = click.Context(root)
    shown = mle("--help").out
    width = max(map(len, CHILDREN))
    for name, child in CHILDREN.items():
        command = root.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert f"  {name.ljust(width)}  {child.help}" in shown


HEAVY = ("rich", "yaml", "http.client", "psutil", "uvicorn", "starlette", "sqlalchemy", "msgspec", "enginehouse.sdk")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["jobs", "submit", "training", "--help"]], ids=" ".join
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from enginehouse.cli.tree import run; run(sys.argv[1:]);"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n"), done.stdout[-200:]
    imported = subprocess.run(
        [sys.executable, "-c", "import sys, enginehouse.cli.tree; print('enginehouse.cli.jobs' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported.stdout == "False\n"
