"""Running `mle` in this process against a fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enginehouse.cli.tree import run
from enginehouse.testing.http import FakeHttpEngine


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str


Mle = Callable[..., Result]


@pytest.fixture
def mle(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a command line in an empty data directory; `mle("jobs", "list")`."""
    monkeypatch.setenv("ENGINEHOUSE_DATA_DIR", str(tmp_path / "no-engine"))
    for name in ("URL", "PROJECT", "STAGING_BUCKET", "TOKEN"):
        monkeypatch.delenv(f"ENGINEHOUSE_{name}", raising=False)

    def call(*arguments: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHttpEngine]:
    """A fake engine that `mle` finds through the environment; its project is `p`."""
    with FakeHttpEngine() as fake:
        monkeypatch.setenv("ENGINEHOUSE_URL", fake.url)
        monkeypatch.setenv("ENGINEHOUSE_PROJECT", "p")
        yield fake


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A trainer package."""
    folder = tmp_path / "project" / "trainer"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "task.py").write_text("print('hello')\n")
    return folder
