"""gsutil from PyPI in a wired shell, without a Cloud SDK.

Slow because gsutil takes a second a command, and 200 MiB go up and down.
"""

import hashlib
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from conformance.conftest import write
from enginehouse.testing.tools import installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SIZES = {"one": 1, "five": 5 * 1024 * 1024, "big": 200 * 1024 * 1024}


def proves(command: str) -> pytest.MarkDecorator:
    return pytest.mark.proves(f"gsutil {command}", state="works")


class Gsutil:
    def __init__(self, environ: Mapping[str, str], directory: Path) -> None:
        self._program = installed("gsutil==5.38") / "gsutil"
        # Without the shims, which would be found first.
        self._environ = {**environ, "PATH": f"{self._program.parent}:{os.environ['PATH']}"}
        self._directory = directory

    def __call__(self, *arguments: str) -> str:
        """What a command printed that succeeds."""
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self._directory,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def gsutil(wired: dict[str, str], tmp_path: Path) -> Gsutil:
    return Gsutil(wired, tmp_path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@proves("mb")
@proves("cp")
@proves("cat")
@proves("ls -l")
@proves("stat")
@proves("du")
@proves("mv")
@proves("rm -r")
def test_objects(gsutil: Gsutil, tmp_path: Path) -> None:
    gsutil("mb", "gs://gsutil-objects")
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(random.Random(size).randbytes(size))
    gsutil("cp", *SIZES, "gs://gsutil-objects/dir/")
    listed = gsutil("ls", "-l", "gs://gsutil-objects/dir/")
    for name, size in SIZES.items():
        assert f"{size}  " in listed
        assert f"gs://gsutil-objects/dir/{name}\n" in listed
    told = gsutil("stat", "gs://gsutil-objects/dir/five")
    assert "Content-Length:         5242880" in told
    assert "Hash (md5):" in told
    assert "Hash (crc32c):" in told
    assert gsutil("du", "-s", "gs://gsutil-objects").split()[0] == str(sum(SIZES.values()))
    (tmp_path / "down").mkdir()
    gsutil("cp", "gs://gsutil-objects/dir/*", "down")
    assert {name: digest(tmp_path / "down" / name) for name in SIZES} == {
        name: digest(tmp_path / name) for name in SIZES
    }
    gsutil("mv", "gs://gsutil-objects/dir/one", "gs://gsutil-objects/moved")
    assert gsutil("cat", "gs://gsutil-objects/moved").encode() == (tmp_path / "one").read_bytes()
    assert gsutil("ls", "gs://gsutil-objects") == "gs://gsutil-objects/moved\ngs://gsutil-objects/dir/\n"
    gsutil("rm", "-r", "gs://gsutil-objects")
    assert "gs://gsutil-objects/" not in gsutil("ls").split()


@proves("-m cp -r")
@proves("rsync")
def test_folders(gsutil: Gsutil, tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / "tree" / f"d{number % 3}" / f"f {number}", "x" * number)
    gsutil("mb", "gs://gsutil-folders")
    gsutil("-m", "cp", "-r", "tree", "gs://gsutil-folders")
    assert len(gsutil("ls", "gs://gsutil-folders/tree/**").splitlines()) == 20
    gsutil("-m", "cp", "-r", "gs://gsutil-folders/tree", "gs://gsutil-folders/copy")
    (tmp_path / "tree" / "d0" / "f 0").write_text("changed")
    (tmp_path / "tree" / "d1" / "f 1").unlink()
    gsutil("-m", "rsync", "-r", "-d", "tree", "gs://gsutil-folders/tree")
    (tmp_path / "back").mkdir()
    gsutil("-m", "rsync", "-r", "gs://gsutil-folders/tree", "back")
    files = {path.relative_to(tmp_path / "tree") for path in (tmp_path / "tree").rglob("f*")}
    assert {path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("f*")} == files
    assert (tmp_path / "back" / "d0" / "f 0").read_text() == "changed"
