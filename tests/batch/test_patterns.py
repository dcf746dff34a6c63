"""Paths with wildcards."""

import pytest

from enginehouse.batch.patterns import Pattern

NAMES = ["in/a.csv", "in/b.csv", "in/deep/c.csv", "in/", "in.csv", "in/[x].csv"]


@pytest.mark.parametrize(
    ("path", "matching"),
    [
        ("gs://b/in/a.csv", ["in/a.csv"]),
        ("gs://b/in/*.csv", ["in/a.csv", "in/b.csv", "in/[x].csv"]),
        ("gs://b/in/?.csv", ["in/a.csv", "in/b.csv"]),
        ("gs://b/in/[!a].csv", ["in/b.csv"]),
        ("gs://b/in/[ab].csv", ["in/a.csv", "in/b.csv"]),
        ("gs://b/in/**.csv", ["in/a.csv", "in/b.csv", "in/deep/c.csv", "in/[x].csv"]),
        ("gs://b/in/", ["in/a.csv", "in/b.csv", "in/deep/c.csv", "in/[x].csv"]),
        ("gs://b/in*", ["in.csv"]),
        ("gs://b", ["in/a.csv", "in/b.csv", "in/deep/c.csv", "in.csv", "in/[x].csv"]),
        ("gs://b/in/a", []),
    ],
)
def test_what_a_path_means(path: str, matching: list[str]) -> None:
    pattern = Pattern.parse(path)
    assert [name for name in NAMES if pattern.matches(name)] == matching
    assert all(name.startswith(pattern.prefix) for name in matching)
