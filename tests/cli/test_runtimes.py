"""`mle runtimes`, with and without an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginehouse.core.files import FileLock
from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.testing.http import FakeHttpEngine

Mle = Callable[..., Any]


def test_the_engines_runtimes(mle: Mle, engine: FakeHttpEngine) -> None:
    row = {
        "name": "1.8",
        "pythonVersion": "3.6",
        "reason": "the default, 2.7, is not here",
        "built": True,
        "sizeBytes": 2048,
        "description": "TensorFlow",
    }
    engine.on("GET", "/enginehouse/v1/runtimes", {"runtimes": [row]})
    assert mle("runtimes", "list").out == (
        "RUNTIME  PYTHON  BUILT    DESCRIPTION  REASON\n"
        "1.8      3.6     2.0 KiB  TensorFlow   the default, 2.7, is not here\n"
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
    assert (result.code, result.out, result.err) == (
        0,
        "/runtimes/scikit-learn-1.9/bin/python\n",
        f"Runtime scikit-learn-1.9 on this host: {Catalogue.load().resolve('scikit-learn-1.9').reason}.\nBuilding.\n",
    )
    unknown = mle("runtimes", "build", "0.1")
    assert unknown.code == 1
    assert "There is no runtime version '0.1'" in unknown.err


def make_environment(root: Path, name: str, runtime: str) -> Path:
    """What looks like a built environment."""
    directory = root / name
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/python").symlink_to(sys.executable)
    (directory / "runtime.json").write_text(json.dumps({"runtime": runtime, "size_bytes": 1000, "packages": {}}))
    return directory


def make_overlay(root: Path, name: str, runtime: str) -> Path:
    directory = root / "overlays" / name
    directory.mkdir(parents=True)
    (directory / "overlay.json").write_text(json.dumps({"runtime": runtime}))
    return directory


def test_prune_removes_what_nothing_finds_and_nobody_uses(
    mle: Mle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "cache"
    monkeypatch.setenv("ENGINEHOUSE_RUNTIMES_DIR", str(root))
    key = RuntimeCache(root, None).key(Catalogue.load().chosen("scikit-learn-1.9", "3.12", "so"))
    current, its_overlay = make_environment(root, key, "scikit-learn-1.9"), make_overlay(root, "aa", key)
    old, old_overlay = make_environment(root, "1.8-py2.7-0123", "1.8"), make_overlay(root, "bb", "1.8-py2.7-0123")
    used = make_environment(root, "1.9-py2.7-0123", "1.9")
    built = root / ".building-1.7-py2.7-0123-01234567"
    built.mkdir()
    leftover = root / ".building-1.6-py2.7-0123-01234567"
    leftover.mkdir()
    lock = FileLock(root / ".1.7-py2.7-0123.lock")
    with lock.held(), subprocess.Popen([used / "bin/python", "-c", "input()"], stdin=subprocess.PIPE) as process:
        dry = mle("runtimes", "prune", "--dry-run")
        assert f"{old}  1000 B  would be removed" in dry.out and old.exists()
        result = mle("runtimes", "prune")
        assert process.stdin is not None
        process.stdin.close()
    assert f"{old}  1000 B  removed" in result.out and f"{used}  1000 B  in use" in result.out
    assert "1 overlays of users' packages  removed" in result.out
    left = [path for path in (current, its_overlay, old, old_overlay, used, built, leftover) if path.exists()]
    assert left == [current, its_overlay, used, built]
    named = mle("runtimes", "prune", "scikit-learn-1.9")
    assert named.code == 0 and not current.exists() and not its_overlay.exists() and used.exists()


def test_install_says_what_else_to_do(mle: Mle, monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    here = mle("runtimes", "install", own)
    assert here.code == 0 and Path(here.out.strip()).exists() and "on this host already" in here.err
    monkeypatch.setattr(Interpreters, "find", lambda *_: None)
    two = mle("runtimes", "install", "2.7")
    assert two.code == 1 and "uv has no Python 2. Install it another way, for example with pyenv" in two.err
    none = mle("runtimes", "install", "3.1")
    assert none.code == 1 and "Installing Python 3.1 failed" in none.err and "pyenv install 3.1" in none.err


def test_doctor_tells_what_is_here_and_what_is_not(mle: Mle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_RUNTIMES_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setattr(Interpreters, "find", lambda _, version: Path("/python") if version == "3.11" else None)
    result = mle("runtimes", "doctor")
    assert result.code == 0
    assert "ok       Python 3.11: /python" in result.out and "missing  Python 2.7\n" in result.out
    assert "missing  runtime 1.8: Runtime 1.8 needs Python 2.7 or 3.6; this host has none of them." in result.out
    assert "runtime 2.21:" not in result.out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENGINEHOUSE_RUNTIMES_DIR", str(tmp_path / "file/cache"))
    broken = mle("runtimes", "doctor")
    assert broken.code == 1 and broken.out.startswith("broken   cache ")
