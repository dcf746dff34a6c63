"""The options of a trainer, read from its source without running it.

In: a package's folder. Out: what its calls of `add_argument` say, and the metrics that it names. Called by
`mle hptuning suggest-config`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_MAX_POWER = 100


@dataclass(frozen=True)
class Option:
    """One `--option`.

    Attributes:
        name: without the dashes, exactly as it is written.
        kind: the name of the function that reads it: "int", "float", "str", another one, or "" for none.
        default: a literal, None where there is none or where only a run would tell.
        choices: likewise, empty for none.
        takes_value: whether it is followed by one value: no switch, and no list.
    """

    name: str
    kind: str
    default: Any
    choices: tuple[Any, ...]
    takes_value: bool


@dataclass(frozen=True)
class Trainer:
    """What the source of a package tells.

    Attributes:
        options: in the order of the source.
        metrics: tags that it reports by `report` or hypertune, in that order.
        unreadable: files that this Python can't parse, as those of Python 2 may be.
    """

    options: tuple[Option, ...]
    metrics: tuple[str, ...]
    unreadable: tuple[Path, ...]


def read_trainer(package: Path) -> Trainer:
    """Read all Python files of a package."""
    options: dict[str, Option] = {}
    metrics: dict[str, None] = {}
    unreadable: list[Path] = []
    for path in sorted(package.rglob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            unreadable.append(path)
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = _name(node.func)
            if called == "add_argument":
                for option in _options(node):
                    options.setdefault(option.name, option)
            elif called == "report" and node.args and isinstance(metric := _literal(node.args[0]), str):
                metrics.setdefault(metric)
            for keyword in node.keywords:
                if keyword.arg == "hyperparameter_metric_tag" and isinstance(tag := _literal(keyword.value), str):
                    metrics.setdefault(tag)
    return Trainer(tuple(options.values()), tuple(metrics), tuple(unreadable))


def _options(call: ast.Call) -> Iterator[Option]:
    flags = [_literal(argument) for argument in call.args]
    names = [flag[2:] for flag in flags if isinstance(flag, str) and flag.startswith("--")]
    told = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if not names:
        return
    action = _literal(told["action"]) if "action" in told else "store"
    choices = _literal(told["choices"]) if "choices" in told else None
    yield Option(
        name=names[0],
        kind=_name(told["type"]) if "type" in told else "",
        default=_literal(told["default"]) if "default" in told else None,
        choices=tuple(choices) if isinstance(choices, list | tuple | set) else (),
        takes_value=action == "store" and "nargs" not in told,
    )


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr) -> Any:
    """The value of a literal or of arithmetic on numbers; None for anything else."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _literal(node.left), _literal(node.right)
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            return None
        if isinstance(node.op, ast.Pow) and abs(right) > _MAX_POWER:
            return None
        try:
            return _ARITHMETIC[type(node.op)](left, right)
        except (ArithmeticError, ValueError):
            return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
