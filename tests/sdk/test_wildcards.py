"""Patterns, and what they find in buckets."""

from __future__ import annotations

import io

import pytest

from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.wildcards import compile_pattern, resolve


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.csv", ["a.csv", ".csv"], ["d/a.csv", "a.csvx", "acsv"]),
        ("d/*", ["d/a", "d/"], ["d/e/a", "da"]),
        ("**", ["a", "d/a", "d/e/a"], []),
        ("d/**", ["d/a", "d/e/a"], ["a"]),
        ("d/**/x", ["d/x", "d/e/x", "d/e/f/x"], ["x", "d/ex"]),
        ("**.csv", ["a.csv", "d/a.csv"], ["a.txt"]),
        ("?.csv", ["a.csv"], ["ab.csv", "/.csv", ".csv"]),
        ("[ab].csv", ["a.csv", "b.csv"], ["c.csv"]),
        ("[!ab].csv", ["c.csv"], ["a.csv"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("a.b+(c)", ["a.b+(c)"], ["aab+(c)"]),
        ("a[", ["a["], ["a"]),
        ("line*", ["line\nbreak"], []),
    ],
)
def test_patterns(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [name for name in matching if not compiled.fullmatch(name)] == []
    assert [name for name in other if compiled.fullmatch(name)] == []


@pytest.fixture
def filled(storage: Storage) -> Storage:
    for name in ("a.csv", "b.csv", "c.txt", "d/a.csv", "d/e/f.csv", "dd/a.csv", "odd[1].csv"):
        storage.upload(io.BytesIO(b"x"), ObjectUri("bkt", name))
    storage.create_bucket("bkt-other")
    storage.upload(io.BytesIO(b"x"), ObjectUri("bkt-other", "a.csv"))
    return storage


@pytest.mark.parametrize(
    ("text", "objects", "prefixes"),
    [
        ("gs://bkt/a.csv", ["a.csv"], []),
        ("gs://bkt/*.csv", ["a.csv", "b.csv", "odd[1].csv"], []),
        ("gs://bkt/?.csv", ["a.csv", "b.csv"], []),
        ("gs://bkt/**.csv", ["a.csv", "b.csv", "d/a.csv", "d/e/f.csv", "dd/a.csv", "odd[1].csv"], []),
        ("gs://bkt/d*", [], ["d/", "dd/"]),
        ("gs://bkt/d*/", [], ["d/", "dd/"]),
        ("gs://bkt/d*/a.csv", ["d/a.csv", "dd/a.csv"], []),
        ("gs://bkt/*/*/*", ["d/e/f.csv"], []),
        ("gs://bkt/d/**", ["d/a.csv", "d/e/f.csv"], []),
        ("gs://bkt/d", [], ["d/"]),
        ("gs://bkt/d/", [], ["d/"]),
        ("gs://bkt", [], [""]),
        ("gs://bkt/odd[1].csv", ["odd[1].csv"], []),
        ("gs://bkt*/a.csv", ["a.csv", "a.csv"], []),
    ],
)
def test_what_a_text_names(filled: Storage, text: str, objects: list[str], prefixes: list[str]) -> None:
    found = resolve(filled, text)
    assert [each.uri.name for each in found.objects] == objects
    assert [each.name for each in found.prefixes] == prefixes


@pytest.mark.parametrize("text", ["gs://bkt/none", "gs://bkt/*.none", "gs://none-*/x", "gs://none", "gs://bkt/none/"])
def test_nothing_matches(filled: Storage, text: str) -> None:
    with pytest.raises(NotFound):
        resolve(filled, text)


def test_a_name_that_is_no_bucket(filled: Storage) -> None:
    with pytest.raises(InvalidArgument, match="not a bucket name"):
        resolve(filled, "gs://B/x")
