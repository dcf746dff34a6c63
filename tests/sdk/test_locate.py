"""Which engine is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.files import FileLock, atomic_write_json
from enginehouse.core.settings import Settings, load_settings
from enginehouse.sdk.errors import EngineUnreachable
from enginehouse.sdk.locate import find_url, running_engine, shown


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("ENGINEHOUSE_URL", raising=False)
    return load_settings({"data_dir": tmp_path}, environ={})


def test_explicit_url_wins(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_URL", "http://from-environment:1")
    assert find_url(settings, "http://given:2/") == "http://given:2"
    assert find_url(settings) == "http://from-environment:1"


def test_a_url_without_scheme_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidArgument, match="http://HOST:PORT"):
        find_url(settings, "localhost:8600")


def test_the_running_engine_of_the_data_directory(settings: Settings) -> None:
    atomic_write_json(settings.engine_file, {"url": "http://127.0.0.1:5", "pid": 7})
    with FileLock(settings.lock_path).held():
        assert find_url(settings) == "http://127.0.0.1:5"
        engine = running_engine(settings)
        assert engine is not None
        assert engine.pid == 7


def test_an_engine_file_without_a_lock_is_a_dead_engine(settings: Settings) -> None:
    atomic_write_json(settings.engine_file, {"url": "http://127.0.0.1:5", "pid": 7})
    with pytest.raises(EngineUnreachable, match=f"mle up --detach --data-dir {settings.data_dir}"):
        find_url(settings)


def test_the_cure_for_the_default_directory_needs_no_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    default = load_settings({}, environ={})
    with pytest.raises(EngineUnreachable) as caught:
        find_url(default)
    assert str(caught.value) == "No engine is running on ~/.enginehouse. Start one with: mle up --detach"


def test_paths_below_home_are_shown_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shown(tmp_path / "a" / "b") == "~/a/b"
    assert shown(Path("/srv/x")) == "/srv/x"
