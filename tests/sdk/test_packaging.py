"""Packages: what is checked, what is built, and that the same files give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from enginehouse.core.errors import InvalidArgument
from enginehouse.sdk.packaging import build_package, build_wheel, check_archive, check_names, check_package, digest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "trainer"
    (folder / "sub" / "__pycache__").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / ".git").mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "task.py").write_text("from trainer.sub import VALUE\nprint(VALUE)\n")
    (folder / "sub" / "__init__.py").write_text("VALUE = 7\n")
    (folder / "sub" / "__pycache__" / "x.pyc").write_bytes(b"junk")
    (folder / "data" / "words, and so on.txt").write_text("data")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ".git" / "config").write_text("junk")
    (folder / "task.py~").write_text("junk")
    return folder


def out(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


class TestWheel:
    def test_content(self, package: Path, tmp_path: Path) -> None:
        wheel = build_package(package, out(tmp_path, "out"))
        assert wheel.name == "trainer-0.0.0-py2.py3-none-any.whl"
        with zipfile.ZipFile(wheel) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [
                "trainer-0.0.0.dist-info/METADATA",
                "trainer-0.0.0.dist-info/RECORD",
                "trainer-0.0.0.dist-info/WHEEL",
                "trainer-0.0.0.dist-info/top_level.txt",
                "trainer/__init__.py",
                "trainer/data/words, and so on.txt",
                "trainer/run.sh",
                "trainer/sub/__init__.py",
                "trainer/task.py",
            ]
            assert archive.getinfo("trainer/run.sh").external_attr >> 16 == 0o100755

    def test_it_installs_and_runs(self, package: Path, tmp_path: Path) -> None:
        from enginehouse.sdk.packaging import find_uv

        wheel = build_wheel(package, out(tmp_path, "out"))
        target = tmp_path / "site"
        install = [find_uv(), "pip", "install", "-q", "--no-deps", "--offline", "--target", target, wheel]
        subprocess.run([*install, "--python", sys.executable], check=True)
        environment = {**os.environ, "PYTHONPATH": str(target)}
        done = subprocess.run(
            [sys.executable, "-m", "trainer.task"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "7\n"

    def test_same_files_same_bytes(self, package: Path, tmp_path: Path) -> None:
        first = build_wheel(package, out(tmp_path, "a")).read_bytes()
        for path in package.rglob("*"):
            os.utime(path, (1, 1))
        (package / "sub" / "__pycache__" / "y.pyc").write_bytes(b"more junk")
        assert build_wheel(package, out(tmp_path, "b")).read_bytes() == first
        (package / "task.py").write_text("print(8)\n")
        assert build_wheel(package, out(tmp_path, "c")).read_bytes() != first


SETUP = (
    "from setuptools import setup, find_packages\nsetup(name='my-trainer', version='1.2', packages=find_packages())\n"
)


class TestOwnBuild:
    def test_setup_py_twice_the_same_and_nothing_left_behind(self, package: Path, tmp_path: Path) -> None:
        project = package.parent
        (project / "setup.py").write_text(SETUP)
        before = sorted(project.rglob("*"))
        first = build_package(package, out(tmp_path, "a"))
        assert first.name in ("my_trainer-1.2.tar.gz", "my-trainer-1.2.tar.gz")
        assert sorted(project.rglob("*")) == before
        with tarfile.open(first) as archive:
            names = archive.getnames()
            assert any(name.endswith("/trainer/task.py") for name in names)
            assert {member.mtime for member in archive} == {0}
        assert build_package(package, out(tmp_path, "b")).read_bytes() == first.read_bytes()

    def test_pyproject(self, package: Path, tmp_path: Path) -> None:
        """A backend within the project, so that the build needs no package index."""
        (package.parent / "pyproject.toml").write_text(
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
            "[project]\nname = 'my-trainer'\nversion = '2.0'\n"
        )
        (package.parent / "backend.py").write_text(
            "import io, tarfile\n"
            "def build_sdist(directory, config_settings=None):\n"
            "    name = 'my_trainer-2.0'\n"
            "    with tarfile.open(f'{directory}/{name}.tar.gz', 'w:gz') as archive:\n"
            "        data = b'Metadata-Version: 2.1\\nName: my-trainer\\nVersion: 2.0\\n'\n"
            "        info = tarfile.TarInfo(name + '/PKG-INFO'); info.size = len(data)\n"
            "        archive.addfile(info, io.BytesIO(data))\n"
            "        archive.add('pyproject.toml', name + '/pyproject.toml')\n"
            "    return name + '.tar.gz'\n"
        )
        assert build_package(package, out(tmp_path, "a")).name == "my_trainer-2.0.tar.gz"

    def test_a_pyproject_of_tool_settings_is_no_build(self, package: Path, tmp_path: Path) -> None:
        (package.parent / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
        assert build_package(package, out(tmp_path, "a")).suffix == ".whl"

    def test_a_build_that_fails_says_why(self, package: Path, tmp_path: Path) -> None:
        (package.parent / "setup.py").write_text("raise SystemExit('no luck today')\n")
        with pytest.raises(InvalidArgument, match=r"(?s)Building the package.*no luck today"):
            build_package(package, out(tmp_path, "a"))


class TestChecks:
    def test_right(self, package: Path) -> None:
        check_package(package, "trainer.task")
        check_package(package, None)
        (package / "sub" / "__main__.py").write_text("")
        check_package(package, "trainer.sub")

    def test_relative_paths(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(package)
        check_package(Path(), "trainer.task")
        monkeypatch.chdir(package.parent)
        check_package(Path("trainer/"), "trainer.task")

    @pytest.mark.parametrize(
        ("module", "message"),
        [
            (
                "trainer.tsk",
                r"there is no trainer/tsk\.py; modules found: trainer\.task\. Did you mean trainer\.task\?",
            ),
            ("trainer.sub", r"there is no trainer/sub\.py"),
            ("other.task", r"the package is called trainer"),
        ],
    )
    def test_wrong_module(self, package: Path, module: str, message: str) -> None:
        with pytest.raises(InvalidArgument, match=message):
            check_package(package, module)

    def test_wrong_folder(self, package: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="no such folder"):
            check_package(tmp_path / "none", None)
        (package / "__init__.py").unlink()
        with pytest.raises(InvalidArgument, match=r"no __init__\.py.*touch"):
            check_package(package, None)
        bad = package.rename(package.with_name("my-trainer"))
        (bad / "__init__.py").touch()
        with pytest.raises(InvalidArgument, match="can't be imported"):
            check_package(bad, None)

    def test_archives(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="no such file"):
            check_archive(tmp_path / "x.whl")
        (tmp_path / "x.txt").touch()
        with pytest.raises(InvalidArgument, match=r"a \.tar\.gz, \.zip or \.whl"):
            check_archive(tmp_path / "x.txt")
        with pytest.raises(InvalidArgument, match="Two packages are called"):
            check_names([Path("a/x.whl"), Path("b/x.whl")])

    def test_digest_is_of_names_and_contents(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_bytes(b"1")
        two.write_bytes(b"2")
        assert digest([one, two]) == digest([two, one])
        before = digest([one, two])
        two.write_bytes(b"3")
        assert digest([one, two]) != before
