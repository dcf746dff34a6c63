"""Tables, yaml, single values."""

from __future__ import annotations

import time

import pytest

from enginehouse.cli.output import field, last_part, local_time, table, text_of, to_yaml


def test_table_aligns_and_leaves_no_blanks_at_the_end() -> None:
    assert table(["A", "LONG"], [["1", "x"], ["333", ""]]) == "A    LONG\n1    x\n333"
    assert table(None, [["a\nb", "c"]]) == "a b  c"


def test_getters() -> None:
    row = {"a": {"b": 1}, "name": "projects/p/models/m", "text": "x"}
    assert field("a.b")(row) == 1
    assert field("a.c")(row) is None
    assert field("text.b")(row) is None
    assert last_part("name")(row) == "m"
    assert last_part("none")(row) == ""


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    assert local_time("t")({"t": "2026-01-31T23:00:00Z"}) == "2026-02-01T01:00:00"
    assert local_time("t")({"t": "2026-01-31T23:00:00.123456789Z"}) == "2026-02-01T01:00:00"
    assert local_time("t")({}) == ""
    monkeypatch.delenv("TZ")
    time.tzset()


def test_cells() -> None:
    assert [text_of(value) for value in (None, "x", True, 1.5, ["ü"], {"a": 1})] == [
        "",
        "x",
        "true",
        "1.5",
        "['ü']",
        "{'a': 1}",
    ]


def test_yaml_is_gclouds() -> None:
    assert to_yaml({"b": ["x"], "a": "2026-01-31T12:00:00Z", "c": "1.8"}) == (
        "a: '2026-01-31T12:00:00Z'\nb:\n- x\nc: '1.8'\n"
    )
