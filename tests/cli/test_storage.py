"""`mle storage` against the real storage API."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving

Mle = Callable[..., Any]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mle: Mle) -> Iterator[str]:
    """An engine's storage with a bucket."""
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    with serving(storage_routes(store)) as url:
        monkeypatch.setenv("ENGINEHOUSE_URL", url)
        assert mle("storage", "mb", "gs://bkt").err == "Creating gs://bkt/...\n"
        yield "gs://bkt"
    store.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("a,b\n1,2\n")
    (folder / "sub" / "b.csv").write_text("b\n")
    return folder


def test_a_day_with_a_bucket(mle: Mle, bucket: str, data: Path, tmp_path: Path) -> None:
    up = mle("storage", "cp", "-r", data, bucket)
    assert up.code == 0
    assert f"Copied {data}/a.csv to gs://bkt/data/a.csv\n" in up.err
    assert "Completed files 2/2 | 10 B" in up.err
    assert mle("storage", "ls").out == "gs://bkt/\n"
    assert mle("storage", "ls", bucket).out == "gs://bkt/data/\n"
    assert mle("storage", "ls", f"{bucket}/data").out == "gs://bkt/data/a.csv\ngs://bkt/data/sub/\n"
    assert mle("storage", "ls", "-d", f"{bucket}/*").out == "gs://bkt/data/\n"
    assert mle("storage", "ls", f"{bucket}/*/").out == "gs://bkt/data/a.csv\ngs://bkt/data/sub/\n"
    assert mle("storage", "ls", "-r", bucket).out == "gs://bkt/data/a.csv\ngs://bkt/data/sub/b.csv\n"
    assert mle("storage", "ls", f"{bucket}/**.csv").out == "gs://bkt/data/a.csv\ngs://bkt/data/sub/b.csv\n"
    long = mle("storage", "ls", "-l", f"{bucket}/data/a.csv").out.splitlines()
    assert long[0].split()[0] == "8"
    assert long[-1] == "TOTAL: 1 objects, 8 bytes (8 B)"

    assert mle("storage", "cat", f"{bucket}/data/a.csv", f"{bucket}/data/sub/*").out == "a,b\n1,2\nb\n"
    assert mle("storage", "cat", "-r", "2-4", f"{bucket}/data/a.csv").out == "b\n1"
    assert mle("storage", "cat", "-r", "6-", f"{bucket}/data/a.csv").out == "2\n"

    assert mle("storage", "cp", f"{bucket}/data/a.csv", tmp_path / "down.csv").code == 0
    assert (tmp_path / "down.csv").read_bytes() == (data / "a.csv").read_bytes()

    assert mle("storage", "mv", f"{bucket}/data/a.csv", f"{bucket}/moved.csv").code == 0
    assert mle("storage", "ls", bucket).out == "gs://bkt/moved.csv\ngs://bkt/data/\n"

    stat = mle("storage", "stat", f"{bucket}/moved.csv", "--format", "json")
    assert json.loads(stat.out)["size"] == "8"
    assert mle("storage", "du", "-s", bucket).out.split() == ["10", "gs://bkt"]
    assert mle("storage", "du", "--readable-sizes", f"{bucket}/data").out.splitlines()[-1].startswith("2 B ")

    assert mle("storage", "rm", f"{bucket}/moved.csv").err == "Removed gs://bkt/moved.csv\n"
    assert mle("storage", "rb", bucket).code == 1, "not empty"
    assert mle("storage", "rm", "-r", bucket).code == 0
    assert mle("storage", "ls").out == ""


def test_stdin_and_stdout(mle: Mle, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    big = os.urandom(9 * 1024 * 1024).hex()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(big.encode())))
    assert mle("storage", "cp", "-", f"{bucket}/big").code == 0
    assert mle("storage", "cp", f"{bucket}/big", "-").out == big
    assert mle("storage", "cp", "-", bucket).code == 2
    assert mle("storage", "cp", "-", "local").code == 2


def test_no_clobber(mle: Mle, bucket: str, data: Path) -> None:
    mle("storage", "cp", data / "a.csv", f"{bucket}/x")
    assert "0/0" in mle("storage", "cp", "-n", data / "sub" / "b.csv", f"{bucket}/x").err
    assert mle("storage", "cat", f"{bucket}/x").out == "a,b\n1,2\n"


def test_rsync(mle: Mle, bucket: str, data: Path) -> None:
    first = mle("storage", "rsync", "-r", data, f"{bucket}/d")
    assert first.err.endswith("2 copied, 0 removed, 0 unchanged.\n")
    (data / "sub" / "b.csv").unlink()
    dry = mle("storage", "rsync", "-r", "-d", "-n", data, f"{bucket}/d")
    assert dry.out == "Would remove gs://bkt/d/sub/b.csv\n"
    excluded = mle("storage", "rsync", "-r", "-d", "-n", "-x", "sub/", data, f"{bucket}/d")
    assert excluded.out == ""
    assert mle("storage", "rsync", "-r", "-d", data, f"{bucket}/d").err.endswith(
        "0 copied, 1 removed, 1 unchanged.\n"
    )
    (data / "extra").write_text("x")
    assert mle("storage", "rsync", "-r", "-d", f"{bucket}/d", data).code == 0
    assert sorted(path.name for path in data.iterdir() if path.is_file()) == ["a.csv"]
    assert mle("storage", "rsync", "-x", "(", data, bucket).code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cp", "only-one"], 2, "at least one source and a target"),
        (["cp", "/no/such", "gs://bkt"], 1, "NOT_FOUND: There is no file /no/such."),
        (["cp", "gs://bkt/none", "."], 1, "NOT_FOUND: gs://bkt/none matches no objects."),
        (["cat", "gs://bkt"], 1, "gs://bkt is a folder"),
        (["cat", "-r", "x", "gs://bkt/a"], 2, "a range is FROM-TO"),
        (["rm", "gs://bkt"], 1, "add -r"),
        (["ls", "gs://missing"], 1, "NOT_FOUND"),
        (["mb", "gs://bkt"], 1, "ERROR: (mle.storage.mb) ALREADY_EXISTS"),
        (["mb", "gs://BAD"], 1, "is not a bucket name"),
        (["mb", "gs://bkt/x"], 1, "is an object; name a bucket: gs://bkt."),
    ],
)
def test_refusals(mle: Mle, bucket: str, arguments: list[str], code: int, message: str) -> None:
    result = mle("storage", *arguments)
    assert result.code == code
    assert message in result.err


def test_a_failing_copy_is_told_and_fails_the_command(mle: Mle, bucket: str, data: Path, tmp_path: Path) -> None:
    mle("storage", "cp", "-r", data, bucket)
    target = tmp_path / "target"
    (target / "data" / "a.csv").mkdir(parents=True)  # a folder where the file should go
    result = mle("storage", "cp", "-r", f"{bucket}/data", target)
    assert result.code == 1
    assert "ERROR: (mle.storage.cp) gs://bkt/data/a.csv: " in result.err
    assert (target / "data" / "sub" / "b.csv").exists(), "the others were copied"


def test_mv_keeps_what_it_could_not_copy(mle: Mle, bucket: str, data: Path, tmp_path: Path) -> None:
    mle("storage", "cp", "-r", data, bucket)
    target = tmp_path / "target"
    (target / "data" / "a.csv").mkdir(parents=True)
    assert mle("storage", "mv", "-r", f"{bucket}/data", target).code == 1
    assert mle("storage", "ls", "-r", bucket).out == "gs://bkt/data/a.csv\n"
