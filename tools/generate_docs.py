"""Write the generated pages of docs/: commands, settings, clients, and what is compatible.

    .venv/bin/python tools/generate_docs.py [FOLDER]

In: the command tree, the tables of settings, variables and hosts, and what the tests say they prove. Out: a page of
each. A test tells when they are behind.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import GLOBAL_OPTIONS, Invocation
from enginehouse.cli.tree import root
from enginehouse.core.settings import SETTINGS
from enginehouse.gateway.environment import variables_table
from enginehouse.gateway.hosts import hosts_table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTE = "<!-- Written by tools/generate_docs.py (make docs); changes made here are lost. -->"


def main(folder: Path = DOCS) -> None:
    """Write all pages."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


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


def clients_page() -> str:
    """What `mle env` sets, and for which hosts the gateway answers."""
    return "\n".join(
        [
            "# Clients",
            NOTE,
            "",
            'Google\'s clients talk to an engine after `eval "$(mle env)"`, or within `mle run -- COMMAND`: gcloud '
            "(`ai-platform` and the retired `ml-engine`), gsutil, google-api-python-client, google-cloud-storage, "
            "google-cloud-logging, gcsfs, TensorFlow's `gs://`, curl. `mle env --unset` puts the shell back as it "
            "was; `mle env --plain` wires without proxy and CA, for clients that take another endpoint. Training "
            "processes have the same by themselves. What works is in [compatibility.md](compatibility.md).",
            "",
            "google-api-python-client speaks through httplib2, which knows proxies only where PySocks is installed "
            "(`pip install pysocks`); without it, it says *Unable to find the server at ml.googleapis.com*.",
            "",
            "In a notebook, start Jupyter from a wired shell (`mle run -- jupyter lab`); its kernels inherit it.",
            "",
            "## Variables",
            "",
            variables_table(),
            "## Hosts",
            "",
            "The gateway ends TLS for these with the private CA of the data directory, and tunnels all others "
            "untouched, through the proxy that the environment named before.",
            "",
            hosts_table(),
        ]
    )


def compatibility_page() -> str:
    """What tests prove, by method and by command."""
    proofs = _proofs()
    methods = {what: proof for what, proof in proofs.items() if what.startswith("ml.")}
    gcloud = {what: proof for what, proof in proofs.items() if what.startswith("gcloud ")}
    others = {what: proof for what, proof in proofs.items() if what not in methods | gcloud}
    return "\n".join(
        [
            "# Compatibility",
            NOTE,
            "",
            "What clients of Cloud Machine Learning Engine (AI Platform) can ask of this engine. Every line is "
            "proven by the test beside it, with the unmodified client in a shell wired by `mle env`.",
            "",
            f"## Methods of ml v1 ({len(methods)})",
            *_proof_table("method", methods),
            "",
            "## gcloud",
            *_proof_table("command", gcloud),
            "",
            "## Other clients",
            *_proof_table("client", others),
            "",
        ]
    )


@dataclass(frozen=True)
class _Proof:
    state: str
    test: str


def _proofs() -> dict[str, _Proof]:
    """What the tests' `proves` markers say, by what is proven."""
    found: dict[str, _Proof] = {}

    class Collector:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            for item in items:
                for marker in item.iter_markers("proves"):
                    test = f"{item.path.name}::{item.name.partition('[')[0]}"
                    found[marker.args[0]] = _Proof(marker.kwargs["state"], test)

    options = [
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = pytest.main([*options, str(ROOT / "tests" / "conformance")], plugins=[Collector()])
    if status != pytest.ExitCode.OK:
        raise SystemExit(printed.getvalue())
    return dict(sorted(found.items()))


def _proof_table(kind: str, proofs: Mapping[str, _Proof]) -> list[str]:
    rows = [f"| `{what}` | {proof.state} | `{proof.test}` |" for what, proof in proofs.items()]
    return ["", f"| {kind} | state | test |", "|---|---|---|", *rows]


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "clients.md": clients_page,
    "compatibility.md": compatibility_page,
}


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
    text = _plain(inspect.cleandoc(command.help or ""))
    lines = [f"## {context.command_path}", "", "    " + " ".join(usage.split()), "", text]
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
