"""Write the generated pages of docs/: the commands of `mle` and the settings.

    .venv/bin/python tools/generate_docs.py [FOLDER]

In: the command tree and the table of settings. Out: `cli.md` and `settings.md`. A test tells when they are behind.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import GLOBAL_OPTIONS, Invocation
from enginehouse.cli.tree import root
from enginehouse.core.settings import SETTINGS

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by tools/generate_docs.py (make docs); changes made here are lost. -->"


def main(folder: Path = DOCS) -> None:
    """Write both pages."""
    folder.mkdir(exist_ok=True)
    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")


def cli_page() -> str:
    """The reference of all commands."""
    context = click.Context(root, info_name="mle", obj=Invocation())
    commands = list(_walk(context))
    lines = [
        "# Commands of `mle`",
        NOTE,
        "",
        "gcloud's words: where `gcloud ai-platform` (or `ml-engine`) and `gsutil` have a command or a flag, `mle` "
        "has it under the same name with the same output. Results go to stdout, everything else to stderr. Exit "
        "codes: 0 done, 1 an error, 2 a wrong command line, 130 interrupted.",
        "",
        "## Global flags",
        "They may stand anywhere in the command line.",
        "",
        *_flag_table(context, list(GLOBAL_OPTIONS)),
        "",
        "## All commands",
        *(f"- [`{each.command_path}`](#{_anchor(each.command_path)}): {_first_line(each)}" for each in commands),
    ]
    for each in commands:
        lines += ["", *_section(each)]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The table of settings."""
    rows = [
        f"| `{each.name}` | `{each.environment_name}` | {_default(each.default)} | {each.doc} |" for each in SETTINGS
    ]
    return "\n".join(
        [
            "# Settings",
            NOTE,
            "",
            "Each setting may be given in `settings.toml` in the data directory (or another file: `mle up --settings "
            "FILE`), in the environment, or as a flag of `mle up` (`--max-running-jobs 4`). Of several, the flag "
            "wins, then the environment. `mle settings` shows those in force.",
            "",
            "| name | environment | default | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _walk(context: click.Context) -> Iterator[click.Context]:
    """The contexts of all commands, without the groups."""
    command = context.command
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from _walk(click.Context(child, info_name=name, parent=context))


def _section(context: click.Context) -> list[str]:
    command = context.command
    assert isinstance(command, Command)
    usage = context.get_usage().removeprefix("Usage: ")
    own = [p for p in command.params if isinstance(p, click.Option) and p not in GLOBAL_OPTIONS and not p.hidden]
    lines = [f"## {context.command_path}", "", "    " + " ".join(usage.split()), "", _plain(command.help or "")]
    if own:
        lines += ["", *_flag_table(context, own)]
    return [*lines, "", "Examples:", "", *(f"    {line}" for line in command.examples)]


def _flag_table(context: click.Context, options: list[click.Option]) -> list[str]:
    lines = ["| flag | meaning |", "|---|---|"]
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            name, text = (part.replace("|", r"\|") for part in record)
            lines.append(f"| `{name}` | {' '.join(text.split())} |")
    return lines


def _plain(text: str) -> str:
    return re.sub(r"\n(?!\n)(?<!\n\n)", " ", text.strip())


def _first_line(context: click.Context) -> str:
    return (context.command.help or "").strip().split("\n")[0]


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def _default(value: object) -> str:
    return f"`{value}`" if value != "" else "none"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
