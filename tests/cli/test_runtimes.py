"""`mle runtimes`, with and without an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.testing.http import FakeHttpEngine

Mle = Callable[..., Any]


def test_the_engines_runtimes(mle: Mle, engine: FakeHttpEngine) -> None:
    row = {"name": "2.21", "pythonVersions": ["3.11", "3.12"], "built": True, "description": "TensorFlow"}
    engine.on("GET", "/enginehouse/v1/runtimes", {"runtimes": [row]})
    assert mle("runtimes", "list").out == (
        "RUNTIME  PYTHON      BUILT  DESCRIPTION\n2.21     3.11, 3.12  true   TensorFlow\n"
    )


def test_those_of_this_installation(mle: Mle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_RUNTIMES_DIR", str(tmp_path / "empty"))
    rows = json.loads(mle("runtimes", "list", "--format", "json").out)
    assert [row["name"] for row in rows] == Catalogue.load().names()
    assert not any(row["built"] for row in rows)


def test_build_prints_the_interpreter(mle: Mle, monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(_: RuntimeCache, resolution: Any, progress: Callable[[str], None]) -> Environment:
        progress("Building.")
        name = resolution.runtime.name
        return Environment("key", Path("/runtimes") / name, name, resolution.python_version, {})

    monkeypatch.setattr(RuntimeCache, "ensure", ensure)
    result = mle("runtimes", "build", "scikit-learn-1.9")
    assert (result.code, result.out, result.err) == (0, "/runtimes/scikit-learn-1.9/bin/python\n", "Building.\n")
    unknown = mle("runtimes", "build", "0.1")
    assert unknown.code == 1
    assert "There is no runtime version '0.1'" in unknown.err
