"""Interpreters of the real runtimes, built if they are not there yet (minutes at the first time, then nothing)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def runtime_python() -> Callable[..., Path]:
    """The interpreter of a runtime by its name, and maybe the Python that it is to have."""
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))

    def python(name: str, version: str | None = None) -> Path:
        return cache.ensure(Catalogue.load().resolve(name, version), print).python

    return python


@pytest.fixture(scope="session")
def make_models(runtime_python: Callable[..., Path]) -> Make:
    """Run a script of this folder in a runtime, with a directory to write models into; returns the interpreter."""

    def make(runtime: str, script: str, directory: Path, version: str | None = None) -> Path:
        python = runtime_python(runtime, version)
        command = [str(python), str(Path(__file__).with_name(script)), str(directory)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return python

    return make
