"""Partial responses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.api.fields import MAX_CHARACTERS, parse_fields, select
from enginehouse.core.errors import InvalidArgument

ANSWER: dict[str, Any] = {
    "kind": "storage#objects",
    "items": [
        {"name": "a", "size": "1", "metadata": {"k": "v", "l": "w"}},
        {"name": "b", "size": "2"},
    ],
    "prefixes": ["c/"],
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", ANSWER),
        ("*", ANSWER),
        ("kind", {"kind": "storage#objects"}),
        (
            "items/name,prefixes,nextPageToken",
            {"items": [{"name": "a"}, {"name": "b"}], "prefixes": ["c/"]},
        ),
        ("items(name,size)", {"items": [{"name": "a", "size": "1"}, {"name": "b", "size": "2"}]}),
        ("items/metadata/k", {"items": [{"metadata": {"k": "v"}}, {}]}),
        (
            "items(metadata(k),name),kind",
            {"kind": "storage#objects", "items": [{"name": "a", "metadata": {"k": "v"}}, {"name": "b"}]},
        ),
        ("items(name),items/size", {"items": [{"name": "a", "size": "1"}, {"name": "b", "size": "2"}]}),
        ("items,items/name", {"items": ANSWER["items"]}),
        ("items/name,items", {"items": ANSWER["items"]}),
        ("items/*", {"items": ANSWER["items"]}),
        ("items/*/k", {"items": [{"name": "a", "size": "1", "metadata": {"k": "v"}}, {"name": "b", "size": "2"}]}),
        (" items / name , kind ", {"kind": "storage#objects", "items": [{"name": "a"}, {"name": "b"}]}),
        ("nothing", {}),
    ],
)
def test_the_part_that_is_asked_for(fields: str, expected: dict[str, Any]) -> None:
    assert select(ANSWER, parse_fields(fields)) == expected


@pytest.mark.parametrize(
    "fields",
    [",", "a,", ",a", "a,,b", "a/", "/a", "a(", "a)", "a()", "a(b", "a(b))", "(a)", "a(b)c", "a b", "a(b)/c", "a//b"],
)
def test_what_is_no_selection(fields: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid field selection"):
        parse_fields(fields)


@pytest.mark.parametrize("fields", ["a" * (MAX_CHARACTERS + 1), "a(" * 3000, "/".join("a" * 3000)])
def test_a_selection_has_limits(fields: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_fields(fields)


@given(st.text(alphabet="ab*(),/ ", max_size=30))
def test_any_text_is_parsed_or_refused(fields: str) -> None:
    try:
        selection = parse_fields(fields)
    except InvalidArgument:
        return
    kept = select(ANSWER, selection)
    assert set(kept) <= set(ANSWER)
