"""Partial responses: the `fields` parameter, which all of Google's JSON APIs know.

    name,prefixes          these two
    items/name             of `items`, each one's name
    items(name,size)       of `items`, each one's name and size
    items/*                all there is

Comes in: the parameter as text, and an answer. Goes out: the part of the answer that was asked for. What is named but
not in the answer is passed over, since optional fields are absent often.

Source: https://cloud.google.com/storage/docs/json_api#partial-response.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from enginehouse.core.errors import InvalidArgument

Selection = dict[str, "Selection | None"]
"""What to keep of an object, by name or for every name ("*"); None keeps all of what is there."""

MAX_CHARACTERS = 8192
MAX_DEPTH = 16
_TOKEN = re.compile(r"[(),/]|[^(),/\s]+")
_PUNCTUATION = frozenset("(),/")
_Path = tuple[str, ...]


def parse_fields(text: str) -> Selection | None:
    """Parse the parameter; None, which keeps all, for an empty one.

    Raises:
        InvalidArgument: it is no selection of fields.
    """
    if not text.strip():
        return None
    if len(text) > MAX_CHARACTERS:
        raise InvalidArgument(f"A selection of fields has at most {MAX_CHARACTERS} characters.", field="fields")
    paths = _paths(_TOKEN.findall(text))
    if paths is None or any(len(path) > MAX_DEPTH for path in paths):
        raise InvalidArgument(f"Invalid field selection {text}", field="fields")
    return _tree(paths)


def select(value: Any, selection: Selection | None) -> Any:
    """The selected part of a JSON value; of a list, the selected part of each element."""
    if selection is None:
        return value
    if isinstance(value, Mapping):
        rest = selection.get("*", {})
        return {
            name: select(inner, selection.get(name, rest))
            for name, inner in value.items()
            if name in selection or "*" in selection
        }
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [select(inner, selection) for inner in value]
    return value


def _paths(tokens: Iterable[str]) -> list[_Path] | None:
    """Each field by its full path; None for what is no selection."""
    paths: list[_Path] = []
    outer: list[_Path] = []  # before each open bracket
    prefix: _Path = ()  # before what is in the innermost bracket
    current: _Path = ()
    last = ","
    for token in tokens:
        after_name = last not in _PUNCTUATION
        if token not in _PUNCTUATION:
            if after_name or last == ")":
                return None
            current += (token,)
        elif token == "(" and after_name:
            outer.append(prefix)
            prefix = current
        elif token in ",)" and (after_name or last == ")"):
            if after_name:
                paths.append(current)
            if token == ")":
                if not outer:
                    return None
                prefix = outer.pop()
            current = prefix
        elif not (token == "/" and after_name):
            return None
        last = token
    if outer or last in "(,/":
        return None
    return [*paths, current] if last != ")" else paths


def _tree(paths: Iterable[_Path]) -> Selection:
    tree: Selection = {}
    for path in sorted(paths, key=len):  # short ones first: what keeps all needs no more said
        node: Selection | None = tree
        for name in path[:-1]:
            if node is not None:
                node = node.setdefault(name, {})
        if node is not None:
            node.setdefault(path[-1], None)
    return tree
