"""Errors, names, units, ids, settings, files."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core import errors, ids, names, units
from enginehouse.core.files import FileLock, atomic_write_json, is_locked, read_json
from enginehouse.core.settings import load_settings


def test_a_field_error_has_the_originals_words_and_details() -> None:
    error = errors.FailedPrecondition("can't be read.", field="package_uris")
    assert error.to_http_body() == {
        "error": {
            "code": 400,
            "message": "Field: package_uris Error: can't be read.",
            "status": "FAILED_PRECONDITION",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "package_uris", "description": "can't be read."}],
                }
            ],
        }
    }
    assert errors.NotFound("gone").to_rpc_status() == {"code": 5, "message": "gone"}


@pytest.mark.parametrize("job_id", ["", "1a", "a-b", "a.b", "a b", "ä", "a" * 129, "a/b", "a\n"])
def test_bad_ids_are_refused(job_id: str) -> None:
    with pytest.raises(errors.InvalidArgument) as error:
        names.check_resource_id(job_id, kind="job", field="job.job_id")
    assert error.value.field == "job.job_id"


def test_object_uris_round_trip() -> None:
    for text in ("gs://bucket", "gs://bucket/a/b c/ü", "gs://bucket/folder/"):
        assert str(names.ObjectUri.parse(text)) == text
    assert str(names.ObjectUri.parse("gs://bucket/a/").join("b", "c/")) == "gs://bucket/a/b/c"
    for bad in ("s3://b/o", "gs://", "gs://B/o", "gs://a", "gs://b..c/o", "gs://bucket/a\nb", "bucket/o"):
        with pytest.raises(errors.InvalidArgument):
            names.ObjectUri.parse(bad)


@given(st.integers(min_value=0, max_value=2**62))
def test_times_round_trip_at_a_fixed_width(time_ns: int) -> None:
    text = units.format_time(time_ns, digits=9)
    assert len(text) == 30
    assert units.parse_time_ns(text) == time_ns


def test_offsets_with_and_without_a_colon() -> None:
    assert units.parse_time_ns("2026-11-21T20:50:48.591966+0000") == units.parse_time_ns(
        "2026-11-21T22:50:48.591966+02:00"
    )


@pytest.mark.parametrize(("text", "seconds"), [("7200s", 7200), ("3.5s", 3.5), ("-1s", -1), ("0s", 0)])
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration_s(text) == seconds
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize("text", ["", "5", "5m", "s", "1e3s", " 5s"])
def test_bad_durations_show_a_good_one(text: str) -> None:
    with pytest.raises(ValueError, match="3600s"):
        units.parse_duration_s(text)


def test_etags_are_canonical_and_survive_reencoding() -> None:
    tag = ids.etag(7)
    assert tag == "AAAAAAAAAAc="
    assert ids.etag_matches(tag, 7)
    assert ids.etag_matches(tag.rstrip("="), 7)
    assert not ids.etag_matches(tag, 8)
    assert not ids.etag_matches("%%%", 7)


class TestSettings:
    def test_flags_beat_environment_beats_file_beats_default(self, tmp_path: Path) -> None:
        (tmp_path / "settings.toml").write_text('port = 1\nhost = "h1"\nproject = "from-file"\n')
        settings = load_settings(
            {"port": 3, "host": None},
            environ={"ENGINEHOUSE_DATA_DIR": str(tmp_path), "ENGINEHOUSE_PORT": "2", "ENGINEHOUSE_HOST": "h2"},
        )
        assert (settings.port, settings.host, settings.project) == (3, "h2", "from-file")
        assert settings.data_dir == tmp_path
        assert settings.cancel_grace_s == 10.0

    def test_errors_name_the_setting_and_the_source(self, tmp_path: Path) -> None:
        with pytest.raises(errors.InvalidArgument, match="ENGINEHOUSE_PORT") as error:
            load_settings({"data_dir": tmp_path}, environ={"ENGINEHOUSE_PORT": "many"})
        assert error.value.field == "port"
        (tmp_path / "settings.toml").write_text("prot = 1\n")
        with pytest.raises(errors.InvalidArgument) as error:
            load_settings({"data_dir": tmp_path}, environ={})
        assert error.value.field == "prot"
        with pytest.raises(errors.InvalidArgument, match="no settings file"):
            load_settings({}, environ={}, file=tmp_path / "nothing.toml")


class TestFiles:
    def test_json_is_written_whole_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        atomic_write_json(tmp_path / "a.json", {"x": 1})
        atomic_write_json(tmp_path / "a.json", {"x": 2})
        assert read_json(tmp_path / "a.json") == {"x": 2}
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
        assert read_json(tmp_path / "b.json") is None

    def test_a_lock_is_let_go_when_its_holder_is_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        code = (
            "import sys, pathlib, time; from enginehouse.core.files import FileLock\n"
            "FileLock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert is_locked(path)
            assert not FileLock(path).acquire(blocking=False)
            holder.kill()
        assert not is_locked(path)
        lock = FileLock(path)
        assert lock.acquire(blocking=False)
        lock.release()
