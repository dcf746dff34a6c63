"""Printing results: yaml, json, tables, single values. Results go to stdout, so that they can be piped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from enginehouse.cli.invocation import Invocation

Column = tuple[str, Callable[[Mapping[str, Any]], Any]]
"""A header and what to show of a row."""


def field(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """A getter of `a.b.c` that gives None where something on the way is missing."""

    def get(row: Mapping[str, Any]) -> Any:
        value: Any = row
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    return get


def last_part(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """A getter of the last part of a resource name: `v1` of `projects/P/models/M/versions/v1`."""
    get = field(path)
    return lambda row: str(get(row) or "").rpartition("/")[2]


def local_time(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """A getter of a timestamp in local time without a zone, as gcloud's lists show it."""
    get = field(path)

    def show(row: Mapping[str, Any]) -> str:
        text = str(get(row) or "")
        if not text:
            return ""
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment.astimezone().strftime("%Y-%m-%dT%H:%M:%S")

    return show


def print_resource(invocation: Invocation, value: Any) -> None:
    """One resource: yaml unless --format says otherwise."""
    kind = invocation.format or "yaml"
    if kind == "table":
        _print_rows([("FIELD", lambda row: row[0]), ("VALUE", lambda row: row[1])], _flatten(value))
    else:
        _print_as(kind, value)


def print_list(invocation: Invocation, rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    """A list of resources: a table unless --format says otherwise."""
    kind = invocation.format or "table"
    rows = list(rows)
    if kind != "table":
        if kind.startswith("value("):
            for row in rows:
                _print_as(kind, row)
        else:
            _print_as(kind, rows)
    elif rows:
        _print_rows(columns, rows)
    if not rows:
        invocation.say("Listed 0 items.")


def to_yaml(value: Any) -> str:
    """yaml as gcloud prints it: sorted keys, blocks."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, width=10_000)


def table(headers: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns with two spaces between them, without trailing blanks."""
    lines = [list(headers)] if headers is not None else []
    lines += [[cell.replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def text_of(value: Any) -> str:
    """A cell: text as it is, nothing for None, lists and objects as gcloud prints them, everything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_as(kind: str, value: Any) -> None:
    if kind == "json":
        click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))
    elif kind == "yaml":
        click.echo(to_yaml(value), nl=False)
    else:
        names = kind.removeprefix("value(").removesuffix(")").split(",")
        click.echo("\t".join(text_of(field(name.strip())(value)) for name in names))


def _print_rows(columns: Sequence[tuple[str, Callable[[Any], Any]]], rows: Iterable[Any]) -> None:
    headers = [header for header, _ in columns]
    click.echo(table(headers, ([text_of(get(row)) for _, get in columns] for row in rows)))


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [row for key in sorted(value) for row in _flatten(value[key], f"{prefix}.{key}" if prefix else key)]
    return [(prefix, value)]
