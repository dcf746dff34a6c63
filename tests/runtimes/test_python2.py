"""Environments and packages of Python 2.7, which uv does not know.

Slow because a virtualenv is fetched once, and pip of that time takes its seconds.
"""

import hashlib
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import uv

from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.runtimes.errors import PackageError, RuntimeBuildError
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.testing.packages import make_wheel

UV = Path(uv.find_uv_bin())
pytestmark = pytest.mark.slow
if Interpreters(UV).find("2.7") is None:
    pytest.skip("this host has no Python 2.7", allow_module_level=True)


def make_old_sdist(folder: Path, requires: str = "") -> Path:
    """A trainer of its time: a setup.py and modules that Python 3 can't even read."""
    files = {
        "setup.py": "print 'setting up'\nfrom distutils.core import setup\nimport setuptools\n"
        f"setup(name='trainer', version='1.0', packages=['trainer'], install_requires=[{requires}],\n"
        "      entry_points={'console_scripts': ['train-it = trainer.task:main']})\n",
        "trainer/__init__.py": "",
        "trainer/model.py": "NAME = 'a relative import'\n",
        "trainer/task.py": "import model\ndef main():\n    import base\n    print model.NAME, base.V\nmain()\n",
    }
    path = folder / "trainer-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"trainer-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, BytesIO(text.encode()))
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels that stands for the package index."""
    folder = tmp_path_factory.mktemp("index")
    for version in ("1.0", "2.0"):
        make_wheel(folder, {"base.py": f"V = {version!r}"}, name="base", version=version, tag="py2-none-any")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> RuntimeCache:
    return RuntimeCache(tmp_path_factory.mktemp("cache"), UV)


@pytest.fixture
def environment(index: Path, cache: RuntimeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """A runtime with `base` 1.0."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "old.toml").write_text(
        'name = "old"\naliases = []\ndescription = ""\nchief_name = "master"\npython_versions = ["2.7"]\n'
        'main_package = "base"\nrequirements = ["base==1.0"]\n[frameworks]\n'
    )
    digest = hashlib.sha256((index / "base-1.0-py2-none-any.whl").read_bytes()).hexdigest()
    (tmp_path / "old-py2.lock").write_text(f"base==1.0 --hash=sha256:{digest}\n")
    return cache.ensure(Catalogue.load(extra=tmp_path).resolve("old"), lambda line: None)


def run(environment: Environment, site: Path, *command: str | Path) -> str:
    variables = {"PYTHONPATH": str(site), "PATH": f"{site}/bin"}
    return subprocess.check_output(command, env=variables, cwd=environment.directory, text=True).strip()


def test_environment_is_whole_compiled_and_in_its_place(environment: Environment) -> None:
    assert environment.packages["base"] == "1.0" and environment.python_version == "2.7"
    told = "import sys, base; print base.__file__, sys.prefix"
    site = environment.directory / "lib/python2.7/site-packages"
    assert run(environment, Path(), environment.python, "-c", told) == f"{site}/base.pyc {environment.directory}"
    pip = environment.directory / "bin/pip"
    assert pip.read_text().startswith(f"#!{environment.python}\n")
    assert run(environment, Path(), pip, "--version").endswith("(python 2.7)")


def test_old_setup_and_a_dependency_that_the_runtime_has(
    environment: Environment, cache: RuntimeCache, tmp_path: Path
) -> None:
    said: list[str] = []
    site = cache.ensure_overlay(environment, [make_old_sdist(tmp_path, "'base>=1'")], said.append)
    assert said == ["Building the package: trainer-1.0.tar.gz", "Successfully installed trainer-1.0"]
    assert run(environment, site, environment.python, "-m", "trainer.task") == "a relative import 1.0"
    assert run(environment, site, site / "bin/train-it").splitlines() == ["a relative import 1.0"] * 2
    assert not (site / "base.py").exists()


def test_dependency_goes_before_the_runtimes_own(
    environment: Environment, cache: RuntimeCache, tmp_path: Path
) -> None:
    said: list[str] = []
    site = cache.ensure_overlay(environment, [make_old_sdist(tmp_path, "'base==2.0'")], said.append)
    assert run(environment, site, environment.python, "-m", "trainer.task") == "a relative import 2.0"
    assert "Running command: pip install --user base (==2.0)" in said
    assert said[-1] == "base 2.0 goes before the runtime's 1.0, since the packages ask for it."
    assert run(environment, Path(), environment.python, "-c", "import base; print base.V") == "1.0"  # as it was
    assert sorted(path.name for path in site.parent.iterdir()) == ["overlay.json", "site"]


def test_failures_have_the_words_of_pip(environment: Environment, cache: RuntimeCache, tmp_path: Path) -> None:
    with pytest.raises(RuntimeBuildError, match=r"(?s)\(missing-thing\) failed .*No matching distribution found"):
        cache.ensure_overlay(environment, [make_old_sdist(tmp_path, "'missing-thing'")], lambda line: None)
    broken = make_old_sdist(tmp_path, "1/0")
    with pytest.raises(PackageError, match=r"(?s)Building trainer-1\.0\.tar\.gz failed .*ZeroDivisionError"):
        cache.ensure_overlay(environment, [broken], lambda line: None)
