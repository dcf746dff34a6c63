"""Flags that stand for fields of a request body, as tables: a row says the flag, the field and how its text is read.

A body begins as what `--config` holds; every flag that was given overrides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from enginehouse.core.errors import InvalidArgument

F = TypeVar("F", bound=Callable[..., Any])


def enum(text: str) -> str:
    """`standard-1` as the API writes it: `STANDARD_1`."""
    return text.upper().replace("-", "_")


def mapping(text: str) -> dict[str, str]:
    """`key=value,other=value`.

    Raises:
        ValueError: a part without `=`.
    """
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{text!r} is not KEY=VALUE,...")
    return {key.strip(): value.strip() for key, _, value in pairs}


def accelerator(text: str) -> dict[str, str]:
    """`count=1,type=nvidia-tesla-k80` as acceleratorConfig."""
    parts = mapping(text)
    if set(parts) - {"count", "type"} or "type" not in parts:
        raise ValueError(f"{text!r} is not count=COUNT,type=TYPE")
    return {"count": parts.get("count", "1"), "type": enum(parts["type"])}


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def count(text: str) -> str:
    """A whole number as the API writes int64: text."""
    return str(int(text))


@dataclass(frozen=True)
class BodyFlag:
    """One row: a flag, the field it sets, and what it is for."""

    flag: str
    path: str
    """Dotted path in the body; empty for a flag that the command itself uses."""
    help: str
    parse: Callable[[str], Any] | None = None
    """None for a plain text; raises ValueError on a bad one."""
    metavar: str = "TEXT"
    switch: bool = False
    """A flag without a value, which sets True."""

    @property
    def name(self) -> str:
        return self.flag.lstrip("-").replace("-", "_")


def flags(rows: Sequence[BodyFlag]) -> Callable[[F], F]:
    """A decorator that adds an option for every row."""

    def decorate(function: F) -> F:
        for row in reversed(rows):
            if row.switch:
                option = click.option(row.flag, row.name, is_flag=True, default=None, help=row.help)
            else:
                option = click.option(row.flag, row.name, metavar=row.metavar, callback=_parser(row), help=row.help)
            function = option(function)
        return function

    return decorate


def _parser(row: BodyFlag) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def parse(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        if text is None or row.parse is None:
            return text
        try:
            return row.parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return parse


def build(config: Mapping[str, Any], rows: Sequence[BodyFlag], given: Mapping[str, Any]) -> dict[str, Any]:
    """The body: `config` with every given flag put in its place."""
    body: dict[str, Any] = _copy(config)
    for row in rows:
        value = given.get(row.name)
        if row.path and value is not None:
            put(body, row.path, value)
    return body


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a dotted path, making what is missing on the way."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = body.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InvalidArgument(f"{parent} in the --config file should hold fields, not {inner!r}.")
        body = inner
    body[last] = value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def load_config(path: str | None) -> dict[str, Any]:
    """The fields in a --config file (yaml or json); nothing when no file was given.

    Raises:
        InvalidArgument: the file can't be read or holds no fields.
    """
    if path is None:
        return {}
    import yaml

    try:
        told = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"--config {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--config {path} is not valid yaml: {error}") from None
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise InvalidArgument(f"--config {path} should hold fields, such as trainingInput:, not {told!r}.")
    return told
