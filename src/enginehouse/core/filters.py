"""The filters of list requests: what Cloud Logging calls its query language, as far as clients use it.

In: the text of `filter` and, per item, a way to look a field up. Out: whether the item passes.

    expression = term {["AND"] term} | term "OR" term …        AND binds closer than OR
    term       = ["NOT" | "-"] ( "(" expression ")" | comparison | word )
    comparison = field operator value                           operators  : = != < <= > >= =~ !~
    value      = word | "quoted text" | "(" value {OR value} ")"

`:` is "has": equal for text without a `*`, else a pattern; anything is had by `field:*`. Text compares without regard
to case, as the originals did; numbers and RFC 3339 times compare by value where both sides are such.
Source: https://cloud.google.com/logging/docs/view/logging-query-language and google.aip.dev/160.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from enginehouse.core.cases import camel_case
from enginehouse.core.errors import InvalidArgument
from enginehouse.core.units import parse_time_ns

MAX_LENGTH = 20_000
_MAX_DEPTH = 50

Lookup = Callable[[str], Any]
"""Field path → value; None where the item has no such field."""

_TOKEN = re.compile(
    r"""\s*(?: (?P<quoted>"(?:[^"\\]|\\.)*")
             | (?P<operator>!=|<=|>=|=~|!~|[:=<>()])
             | (?P<word>[^\s"()=<>:!]+ (?:"(?:[^"\\]|\\.)*" [^\s"()=<>:!]*)*)
             | (?P<minus>-) )""",
    re.VERBOSE,
)
_COMPARISONS = frozenset({":", "=", "!=", "<", "<=", ">", ">=", "=~", "!~"})


class OwnOrder:
    """Mix-in for a field's value that says itself how it compares."""

    def sides(self, wanted: str) -> tuple[Any, Any]:
        """What to compare instead of the field and the filter's text."""
        raise NotImplementedError


class ExactText(OwnOrder, str):
    """A field that compares as plain text, whatever it looks like (an id such as `12e5`)."""

    def sides(self, wanted: str) -> tuple[str, str]:
        return str(self), wanted


@dataclass(frozen=True)
class Filter:
    """A parsed filter. Immutable, so free to share.

    Attributes:
        test: the whole filter as a function.
        values: path → the only values that a passing item may have there, for paths where the filter says so. Lets a
            caller look only where something can be found.
        since_ns: no item with an earlier `timestamp` passes.
    """

    test: Callable[[Lookup], bool]
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since_ns: int = 0

    def matches(self, lookup: Lookup) -> bool:
        """Whether the item behind `lookup` passes."""
        return self.test(lookup)


def _all_of(parts: Sequence[Filter]) -> Filter:
    if len(parts) == 1:
        return parts[0]
    values: dict[str, frozenset[str]] = {}
    for part in parts:
        for path, allowed in part.values.items():
            values[path] = values[path] & allowed if path in values else allowed
    return Filter(
        lambda lookup: all(part.test(lookup) for part in parts), values, max(part.since_ns for part in parts)
    )


def _any_of_filters(parts: Sequence[Filter]) -> Filter:
    if len(parts) == 1:
        return parts[0]
    shared = set.intersection(*(set(part.values) for part in parts))
    values = {path: frozenset().union(*(part.values[path] for part in parts)) for path in shared}
    return Filter(
        lambda lookup: any(part.test(lookup) for part in parts), values, min(part.since_ns for part in parts)
    )


EVERYTHING = Filter(lambda _lookup: True)


def parse_filter(text: str, *, field_path: str = "filter") -> Filter:
    """Read a filter; blank text lets everything pass.

    Raises:
        InvalidArgument: naming `field_path`, and the place where the text stops making sense.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidArgument(f"A filter has at most {MAX_LENGTH} characters.", field=field_path)
    try:
        tokens = list(_tokenize(text))
        if not tokens:
            return EVERYTHING
        parser = _Parser(tokens)
        parsed = parser.expression(0)
        parser.expect_end()
    except _Unparsable as error:
        raise InvalidArgument(
            f'The filter can\'t be read: {error}. Write, for example: jobId:census* AND state="FAILED"',
            field=field_path,
        ) from None
    return parsed


def lookup_in(value: Mapping[str, Any]) -> Lookup:
    """Fields of JSON by their dotted path; parts may be quoted, and camelCase or snake_case."""

    def lookup(path: str) -> Any:
        found: Any = value
        for part in _path_parts(path):
            if not isinstance(found, Mapping):
                return None
            found = found.get(part, found.get(camel_case(part)))
        return found

    return lookup


class _Unparsable(ValueError):
    pass


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokenize(text: str) -> Iterator[_Token]:
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Unparsable(f"at {text[position:].strip()[:20]!r}")
        kind = match.lastgroup or ""
        content = match[kind]
        if kind == "word" and content.startswith("-") and len(content) > 1 and not _is_number(content):
            yield _Token("minus", "-", match.start(kind))
            content = content[1:]
        yield _Token(kind, _unquote(content) if kind == "quoted" else content, match.start(kind))
        position = match.end()


class _Parser:
    """Recursive descent; each rule returns the test that it stands for."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def expression(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise _Unparsable("it is nested too deeply")
        choices = [self._conjunction(depth)]
        while self._take_word("OR"):
            choices.append(self._conjunction(depth))
        return _any_of_filters(choices)

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            raise _Unparsable(f"at {self._tokens[self._next].text!r}")

    def _conjunction(self, depth: int) -> Filter:
        parts = [self._term(depth)]
        while self._next < len(self._tokens):
            if self._peek_word("OR") or self._peek_operator(")"):
                break
            self._take_word("AND")
            parts.append(self._term(depth))
        return _all_of(parts)

    def _term(self, depth: int) -> Filter:
        if self._take_word("NOT") or self._take("minus"):
            negated = self._term(depth + 1) if depth < _MAX_DEPTH else self.expression(depth + 1)
            return Filter(lambda lookup: not negated.test(lookup))
        if self._take_operator("("):
            inner = self.expression(depth + 1)
            if not self._take_operator(")"):
                raise _Unparsable("a parenthesis is not closed")
            return inner
        return self._comparison(depth)

    def _comparison(self, depth: int) -> Filter:
        path = self._value_token()
        operator = self._tokens[self._next] if self._next < len(self._tokens) else None
        if operator is None or operator.kind != "operator" or operator.text not in _COMPARISONS:
            raise _Unparsable(f"after {path.text!r} comes no comparison")
        self._next += 1
        if self._take_operator("("):
            return self._value_list(path.text, operator.text)
        wanted = self._value_token()
        return _comparison(path.text, operator.text, wanted.text)

    def _value_list(self, path: str, operator: str) -> Filter:
        choices = [_comparison(path, operator, self._value_token().text)]
        joined_by = ""
        while not self._take_operator(")"):
            word = "OR" if self._take_word("OR") else "AND" if self._take_word("AND") else ""
            if not word or (joined_by and word != joined_by):
                raise _Unparsable("values in parentheses are joined by OR or by AND")
            joined_by = word
            choices.append(_comparison(path, operator, self._value_token().text))
        return _all_of(choices) if joined_by == "AND" else _any_of_filters(choices)

    def _value_token(self) -> _Token:
        if self._next < len(self._tokens) and self._tokens[self._next].kind in ("word", "quoted"):
            self._next += 1
            return self._tokens[self._next - 1]
        if self._take("minus"):  # a negative number
            token = self._value_token()
            return _Token("word", "-" + token.text, token.position)
        raise _Unparsable(
            "a value is missing at the end" if self._next >= len(self._tokens) else "a value is missing"
        )

    def _take(self, kind: str) -> bool:
        if self._next < len(self._tokens) and self._tokens[self._next].kind == kind:
            self._next += 1
            return True
        return False

    def _peek_word(self, word: str) -> bool:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        return token is not None and token.kind == "word" and token.text == word

    def _take_word(self, word: str) -> bool:
        if self._peek_word(word):
            self._next += 1
            return True
        return False

    def _peek_operator(self, text: str) -> bool:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        return token is not None and token.kind == "operator" and token.text == text

    def _take_operator(self, text: str) -> bool:
        if self._peek_operator(text):
            self._next += 1
            return True
        return False


def _comparison(path: str, operator: str, wanted: str) -> Filter:
    test = _comparison_test(path, operator, wanted)
    if operator in (":", "=") and "*" not in wanted:
        return Filter(test, {path: frozenset({wanted})})
    if operator in (">", ">=") and path == "timestamp":
        try:
            return Filter(test, since_ns=parse_time_ns(wanted))
        except ValueError:
            pass
    return Filter(test)


def _comparison_test(path: str, operator: str, wanted: str) -> Callable[[Lookup], bool]:
    match operator:
        case ":":
            has = _has(wanted)
            return lambda lookup: _any_of(lookup(path), has)
        case "=":
            return lambda lookup: _any_of(lookup(path), lambda found: _equal(found, wanted))
        case "!=":
            return lambda lookup: not _any_of(lookup(path), lambda found: _equal(found, wanted))
        case "=~" | "!~":
            try:
                pattern = re.compile(wanted)
            except re.error as error:
                raise _Unparsable(f"{wanted!r} is no regular expression ({error})") from None
            positive = operator == "=~"
            return lambda lookup: _any_of(lookup(path), lambda found: bool(pattern.search(str(found)))) is positive
        case _:
            return lambda lookup: _any_of(lookup(path), lambda found: _ordered(found, operator, wanted))


def _any_of(found: Any, test: Callable[[Any], bool]) -> bool:
    if found is None:
        return False
    if isinstance(found, (list, tuple)):
        return any(_any_of(item, test) for item in found)
    return test(found)


def _has(wanted: str) -> Callable[[Any], bool]:
    if wanted == "*":
        return lambda _found: True
    pattern = re.compile(translate(wanted.lower().replace("[", "[[]"))) if "*" in wanted else None

    def has(found: Any) -> bool:
        if isinstance(found, Mapping):
            return wanted in found
        return bool(pattern.match(_text(found).lower())) if pattern else _equal(found, wanted)

    return has


def _equal(found: Any, wanted: str) -> bool:
    return _ordered(found, "=", wanted)


def _ordered(found: Any, operator: str, wanted: str) -> bool:
    left, right = found.sides(wanted) if isinstance(found, OwnOrder) else _comparable(_text(found), wanted)
    match operator:
        case "=":
            return bool(left == right)
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
        case _:
            return bool(left >= right)


def _comparable(found: str, wanted: str) -> tuple[Any, Any]:
    """Both sides as numbers or times if both are such, else as text without case."""
    for convert in (float, parse_time_ns):
        try:
            return convert(found), convert(wanted)
        except ValueError:
            continue
    return found.lower(), wanted.lower()


def _text(found: Any) -> str:
    return str(found).lower() if isinstance(found, bool) else str(found)


def _path_parts(path: str) -> list[str]:
    return [_unquote(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"|[^."]+', path)]


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') and len(text) > 1 else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
