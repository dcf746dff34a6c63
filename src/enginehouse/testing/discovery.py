"""Requests made from a discovery document: right ones, odd ones and wrong ones.

In: a discovery document of a Google API. Out: a hypothesis strategy of `Call`s, which a test sends to a server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

ODD_TEXTS = (
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a%2Fb",
    "\0",
    "a\r\nX: y",
    "ü🦆",
    "x" * 1025,
    "gs://",
    "gs://b/o",
    "*",
    "'\";--",
    "{}",
    "-1",
    "1e999",
)
_ODD_BODIES = (b"", b"{", b"[]", b"\xff", b'"x"', b"null")
_MAX_DEPTH = 4
_SAFE_SEGMENT = "-._~!$'()*,;:@&=+"


@dataclass(frozen=True)
class Call:
    """One request, ready to be sent."""

    method: str
    verb: str
    target: str
    body: bytes | None


def calls(document: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> SearchStrategy[Call]:
    """Calls of all methods of an API.

    Args:
        known: path parameter → values that lead to something that is there; parameters with the name of none get odd
            texts alone.
    """
    return st.sampled_from(sorted(_methods(document), key=lambda method: str(method["id"]))).flatmap(
        lambda method: _call(document, method, known)
    )


def _methods(resource: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from resource.get("methods", {}).values()
    for inner in resource.get("resources", {}).values():
        yield from _methods(inner)


@st.composite
def _call(
    draw: st.DrawFn, document: Mapping[str, Any], method: Mapping[str, Any], known: Mapping[str, Sequence[str]]
) -> Call:
    parameters = method.get("parameters", {})
    template = method.get("flatPath", method["path"])

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=20)
        is_known = name in known and draw(st.integers(0, 9)) > 0
        value = draw(st.sampled_from(known[name]) if is_known else texts)
        return quote(value, safe=_SAFE_SEGMENT, errors="replace")

    path = "/" + document["servicePath"] + re.sub(r"\{\+?(\w+)\}", fill, template)
    if draw(st.integers(0, 19)) == 0:
        path += draw(st.sampled_from(["/", "//", "/..", ":", ":undelete", "%00", "?"]))
    query = {
        name: draw(_parameter(schema))
        for name, schema in {**document["parameters"], **parameters}.items()
        if schema["location"] == "query" and draw(st.integers(0, 7)) == 0
    }
    body = None
    if "request" in method:
        value = draw(_value(document["schemas"], method["request"], _MAX_DEPTH))
        body = draw(
            st.just(json.dumps(value).encode()) | st.sampled_from([b"", b"{", b"[]", b"\xff", b'"x"', b"null"])
        )
    target = path + ("?" + urlencode(query, errors="replace") if query else "")
    return Call(method["id"], method["httpMethod"], target, body)


def _parameter(schema: Mapping[str, Any]) -> SearchStrategy[str]:
    right: SearchStrategy[str] = st.text(max_size=30)
    if schema["type"] == "integer":
        right = st.integers(-2, 2000).map(str)
    elif schema["type"] == "boolean":
        right = st.sampled_from(["true", "false"])
    elif "enum" in schema:
        right = st.sampled_from(schema["enum"])
    return right | st.sampled_from(ODD_TEXTS)


def _value(schemas: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> SearchStrategy[Any]:
    """Mostly a value of the schema, sometimes anything."""
    anything = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(ODD_TEXTS)
    right = _right(schemas, schema, depth)
    return st.integers(0, 15).flatmap(lambda number: anything if number == 0 else right)


def _right(schemas: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> SearchStrategy[Any]:
    if "$ref" in schema:
        schema = schemas[schema["$ref"]]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        if depth == 0:
            return st.just({})
        if "additionalProperties" in schema:
            inner = _value(schemas, schema["additionalProperties"], depth - 1)
            return st.dictionaries(st.text(max_size=10), inner, max_size=3)
        fields = {
            name: st.deferred(lambda each=each: _value(schemas, each, depth - 1))  # type: ignore[misc]
            for name, each in schema.get("properties", {}).items()
        }
        chosen = st.lists(st.sampled_from(sorted(fields)), max_size=6, unique=True) if fields else st.just([])
        return chosen.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
    if kind == "array":
        if depth == 0:
            return st.just([])
        return st.lists(st.deferred(lambda: _value(schemas, schema["items"], depth - 1)), max_size=3)
    if kind == "string" and schema.get("format") == "int64":
        return st.integers(-(2**63), 2**63 - 1).map(str)
    if kind == "integer":
        return st.integers(-(2**31), 2**31 - 1)
    if kind == "number":
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind == "boolean":
        return st.booleans()
    return st.text(max_size=20) | st.sampled_from(ODD_TEXTS)
