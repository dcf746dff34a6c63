"""Reading and writing messages by the JSON rules of protocol buffers.

In: bytes of a request body. Out: a typed message, or `InvalidArgument` with the snake_case path of the wrong field.
Called by `api` for requests and answers and by `metadata` for the messages that it stores.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

from enginehouse.core.cases import snake_case
from enginehouse.core.errors import InvalidArgument

Timestamp = Annotated[str, msgspec.Meta(extra={"format": "google-datetime"})]
Duration = Annotated[str, msgspec.Meta(extra={"format": "google-duration"})]
FieldMask = Annotated[str, msgspec.Meta(extra={"format": "google-fieldmask"})]
Base64 = Annotated[str, msgspec.Meta(extra={"format": "byte"})]
OutputOnly = msgspec.Meta(extra={"readOnly": True})
Hidden = msgspec.Meta(extra={"hidden": True})
"""A field that is taken, but not in the discovery document."""


class Int64(int):
    """An int64: a JSON string on the wire ("4"), read from strings and numbers alike."""


class Message(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of all messages: lowerCamelCase on the wire, absent when default, unknown fields refused."""


M = TypeVar("M", bound=Message)

_known: set[type] = set()
_learning = threading.Lock()
_TOO_DEEP = "The request body holds values in values too deeply."
_WHERE = re.compile(r"(?P<text>.*?)(?: - at `(?P<path>\$[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_STEP = re.compile(r"\[[^]]*\]|[^.[]+")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")


def _decode_hook(kind: type, value: Any) -> Any:
    if kind is Int64:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError(f"Expected `int64`, got `{type(value).__name__}`")
        try:
            return Int64(value)
        except ValueError:
            raise ValueError(f"Expected `int64`, got {value!r}") from None
    raise NotImplementedError(kind)


def _encode_hook(value: Any) -> Any:
    if isinstance(value, Int64):
        return str(int(value))
    raise NotImplementedError(type(value))


def decode(kind: type[M], body: bytes, *, field: str = "") -> M:
    """Read a message from a request body; an empty body is an empty message.

    Args:
        kind: the message's class.
        body: JSON text in UTF-8.
        field: snake_case path to put before the paths in errors, for nested messages.

    Raises:
        InvalidArgument: not JSON, an unknown field, or a value of the wrong type; names the field.
    """
    try:
        value = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidArgument(_TOO_DEEP) from None
    return from_builtins(kind, value, field=field)


def from_builtins(kind: type[M], value: Any, *, field: str = "") -> M:
    """`decode` for a value that is parsed already (dicts, lists, strings, numbers)."""
    if kind not in _known:
        _learn(kind)
    try:
        return msgspec.convert(_without_nulls(value), kind, strict=False, dec_hook=_decode_hook)
    except msgspec.ValidationError as error:
        raise _explain(str(error), field, kind) from None
    except RecursionError:
        raise InvalidArgument(_TOO_DEEP) from None


def _learn(kind: type[Message]) -> None:
    """Let msgspec look at a class, which it does at the first use, by one thread: another one that uses the class
    meanwhile gets what is half made, and crashes the process (msgspec 0.22).
    """
    with _learning:
        with contextlib.suppress(msgspec.ValidationError):
            msgspec.convert(None, kind, dec_hook=_decode_hook)
        _known.add(kind)


def to_builtins(message: Message) -> dict[str, Any]:
    """A message as JSON-ready dicts and lists: camelCase, int64 as strings, defaults left out.

    What JSON has no number for is text, as in protocol buffers' JSON: "NaN", "Infinity", "-Infinity".
    """
    result: dict[str, Any] = _with_finite_numbers(msgspec.to_builtins(message, enc_hook=_encode_hook))
    return result


def encode(message: Message) -> bytes:
    """A message as JSON bytes."""
    return msgspec.json.encode(to_builtins(message))


def _with_finite_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if type(item) is str else _with_finite_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) is str else _with_finite_numbers(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _without_nulls(value: Any) -> Any:
    """JSON null means "not set" in protocol buffers' JSON."""
    if isinstance(value, dict):
        return {
            key: item if type(item) is str else _without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [item if type(item) is str else _without_nulls(item) for item in value]
    return value


def _explain(text: str, prefix: str, kind: type[Message]) -> InvalidArgument:
    match = _WHERE.fullmatch(text)
    assert match is not None
    words, path = match["text"], (match["path"] or "$")[1:].lstrip(".")
    if unknown := _UNKNOWN.match(words):
        path = f"{path}.{unknown['name']}" if path else unknown["name"]
        words = f"Unknown name {unknown['name']!r}: there is no such field."
    elif missing := _MISSING.match(words):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        words = "The field is required."
    elif words.startswith("Invalid enum value"):
        words += f": it is one of {', '.join(_enum_values(kind, path))}."
    else:
        words = words.replace("`", "'") + "."
        if "Expected 'str" in words and ("got 'float'" in words or "got 'int'" in words):
            words += " Put the value in quotes."
    full = ".".join(part for part in (prefix, snake_case(path)) if part)
    return InvalidArgument(words, field=full) if full else InvalidArgument(words)


def _enum_values(kind: type[Message], path: str) -> list[str]:
    """What may stand at a path of a message (`a.b[0].c`), without the value for "not set"."""
    kinds = _alternatives(inspect.type_info(kind))
    for step in _STEP.findall(path):
        kinds = [inner for each in kinds for found in _inside(each, step) for inner in _alternatives(found)]
    values = [str(value) for each in kinds if isinstance(each, inspect.LiteralType) for value in each.values]
    return [value for value in values if not value.endswith("_UNSPECIFIED")]


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.UnionType():
            return [each for one in kind.types for each in _alternatives(one)]
        case inspect.Metadata():
            return _alternatives(kind.type)
    return [kind]


def _inside(kind: inspect.Type, step: str) -> list[inspect.Type]:
    match kind:
        case inspect.StructType():
            return [field.type for field in kind.fields if field.encode_name == step]
        case inspect.ListType():
            return [kind.item_type]
        case inspect.DictType():
            return [kind.value_type]
    return []
