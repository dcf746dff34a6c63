"""The locks pin everything that pyproject.toml asks for, with hashes, and name no place to get it from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def normalised(requirement: str) -> str:
    name = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.findall(
        r"^([a-z0-9][\w.-]*)==([^\s;]+)(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n?)+)", text, re.M
    )
    pinned = {normalised(entry[0]) for entry in entries}
    assert len(entries) == len(re.findall(r"^[a-z0-9]", text, re.M)), "an entry without hashes"
    assert "://" not in text
    assert not re.search(r"^--", text, re.M), "an option, such as an index"

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], "editables"]
    if "dev" in name:
        wanted += project["project"]["optional-dependencies"]["dev"]
    assert {normalised(requirement) for requirement in wanted} <= pinned, "run `make lock`"
