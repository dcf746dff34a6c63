import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Resolution
from enginehouse.runtimes.errors import PackageError, RuntimeBuildError
from enginehouse.testing.packages import make_sdist, make_wheel

Ensure = Callable[..., Path]

IN_TREE_BACKEND = """
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    {extra}
    name = "trainer-0.1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("trainer/__init__.py", "")
        wheel.writestr("trainer/task.py", "print('built')")
        info = "trainer-0.1.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: trainer\\nVersion: 0.1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
BACKEND_PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ensure(cache: RuntimeCache, light: Environment, said: list[str]) -> Ensure:
    return lambda *packages: cache.ensure_overlay(light, packages, said.append)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_INDEX", "")
    return folder


def run(light: Environment, site: Path, *arguments: str) -> str:
    variables = {"PYTHONPATH": str(site), "PATH": f"{site}/bin:{os.environ['PATH']}"}
    return subprocess.check_output([light.python, *arguments], env=variables, text=True).strip()


def runtime_of(wheel: Path, directory: Path) -> Resolution:
    """A runtime that consists of one wheel."""
    name, version, *_ = wheel.name.split("-")
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    directory.mkdir()
    (directory / "small.toml").write_text(
        f'name = "small"\naliases = []\ndescription = ""\nchief_name = "chief"\npython_versions = ["{own}"]\n'
        f'main_package = "{name}"\nrequirements = ["{name}=={version}"]\n[frameworks]\n'
    )
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (directory / "small.lock").write_text(f"{name}=={version} --hash=sha256:{digest}\n")
    return Catalogue.load(extra=directory).resolve("small")


def contents(site: Path) -> set[str]:
    return {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}


def test_pure_wheel_is_unpacked(ensure: Ensure, light: Environment, tmp_path: Path, said: list[str]) -> None:
    wheel = make_wheel(tmp_path, {"trainer/task.py": "print('hello')", "trainer/data/x.csv": "1"})
    began = time.monotonic()
    site = ensure(wheel)
    assert time.monotonic() - began < 0.5  # a few milliseconds; uv would take a process
    assert run(light, site, "-m", "trainer.task") == "hello"
    assert (site / "trainer/data/x.csv").read_text() == "1"
    assert said == ["Successfully installed trainer-0.1"]
    version = "from importlib.metadata import version; print(version('trainer'))"
    assert run(light, site, "-c", version) == "0.1"
    assert json.loads((site.parent / "overlay.json").read_text()) == {
        "runtime": light.key,
        "packages": {"trainer": "0.1"},
        "modules": ["trainer", "trainer.task"],
        "dependencies": {},
    }


def test_simple_sdist_is_copied(ensure: Ensure, light: Environment, tmp_path: Path, said: list[str]) -> None:
    site = ensure(make_sdist(tmp_path, {"trainer/task.py": "print('hello')", "tests/test_it.py": ""}))
    assert run(light, site, "-m", "trainer.task") == "hello"
    assert said == ["Successfully installed trainer-0.1"]
    assert run(light, site, "-c", "from importlib.metadata import version; print(version('trainer'))") == "0.1"


def test_same_content_is_found_again(ensure: Ensure, tmp_path: Path, said: list[str]) -> None:
    files = {"trainer/task.py": "x = 1"}
    first = ensure(make_sdist(tmp_path / "a", files))
    again = make_sdist(tmp_path / "b", files, mtime=1)
    assert again.read_bytes() != (tmp_path / "a" / again.name).read_bytes()
    said.clear()
    assert ensure(again) == first and said == []
    assert ensure(make_sdist(tmp_path / "c", {"trainer/task.py": "x = 2"})) != first


def test_order_of_packages_counts_and_the_later_wins(ensure: Ensure, light: Environment, tmp_path: Path) -> None:
    one = make_wheel(tmp_path, {"common.py": "print(1)"}, name="one")
    two = make_wheel(tmp_path, {"common.py": "print(2)"}, name="two")
    assert run(light, ensure(one, two), "-m", "common") == "2"
    assert run(light, ensure(two, one), "-m", "common") == "1"


def test_no_packages(ensure: Ensure) -> None:
    assert contents(ensure()) == set()


def test_dependency_from_the_index(
    ensure: Ensure, light: Environment, tmp_path: Path, index: Path, said: list[str]
) -> None:
    make_wheel(index, {"inner.py": "V = 7"}, name="inner", version="2.0")
    make_wheel(index, {"helper.py": "from inner import V"}, name="helper", version="1.5", requires=["inner>=1"])
    trainer = make_wheel(tmp_path, {"trainer/task.py": "import helper; print(helper.V)"}, requires=["helper<2"])
    site = ensure(trainer)
    assert run(light, site, "-m", "trainer.task") == "7"
    assert "Running command: uv pip install helper<2" in said
    assert said[-1] == "Successfully installed helper-1.5 inner-2.0"


def test_packages_given_together_need_no_index(ensure: Ensure, tmp_path: Path, said: list[str]) -> None:
    helper = make_wheel(tmp_path, {"helper.py": ""}, name="helper", version="1.5")
    trainer = make_sdist(tmp_path, {"trainer/task.py": ""}, requires=["helper>=1", "absent; extra == 'x'"])
    ensure(trainer, helper)
    assert said == ["Successfully installed trainer-0.1", "Successfully installed helper-1.5"]


def test_what_the_runtime_has_is_not_installed_again(
    cache: RuntimeCache, light: Environment, tmp_path: Path, index: Path, said: list[str]
) -> None:
    """A runtime with `base` 1.0: enough for one trainer, too old for another."""
    base = make_wheel(index, {"base.py": "V = 1"}, name="base", version="1.0")
    environment = cache.ensure(runtime_of(base, tmp_path / "catalogue"), said.append)
    said.clear()
    make_wheel(index, {"base.py": "V = 2"}, name="base", version="2.0")
    content = make_wheel(tmp_path, {"trainer/task.py": "import base; print(base.V)"}, requires=["base>=1"])
    site = cache.ensure_overlay(environment, [content], said.append)
    assert said == ["Successfully installed trainer-0.1"] and not (site / "base.py").exists()
    other = make_wheel(
        tmp_path, {"trainer/task.py": "import base; print(base.V)"}, version="0.2", requires=["base>=2"]
    )
    said.clear()
    site = cache.ensure_overlay(environment, [other], said.append)
    assert run(environment, site, "-m", "trainer.task") == "2"
    assert "base 2.0 goes before the runtime's 1.0, since the packages ask for it." in said
    old = make_wheel(tmp_path, {"trainer/task.py": ""}, version="0.3", requires=["missing-thing"])
    with pytest.raises(RuntimeBuildError, match=r"Installing what the packages need \(missing-thing\) failed"):
        cache.ensure_overlay(environment, [old], said.append)


def test_dependency_replaces_a_package_that_was_given(
    ensure: Ensure, light: Environment, tmp_path: Path, index: Path
) -> None:
    make_wheel(index, {"helper.py": "V = 2"}, name="helper", version="2.0")
    given = make_sdist(tmp_path, {"helper/__init__.py": "V = 1"}, name="helper", version="1.0")
    trainer = make_wheel(tmp_path, {"trainer/task.py": "import helper; print(helper.V)"}, requires=["helper>=2"])
    assert run(light, ensure(given, trainer), "-m", "trainer.task") == "2"


def test_console_scripts_are_on_the_path(ensure: Ensure, light: Environment, tmp_path: Path) -> None:
    entry = "[console_scripts]\ntrain-it = trainer.task:main\n"
    wheel = make_wheel(tmp_path, {"trainer/task.py": "def main(): print('from a script')"}, entry_points=entry)
    code = "import subprocess; subprocess.check_call(['train-it'])"
    assert run(light, ensure(wheel), "-c", code) == "from a script"


def test_sdist_with_a_build_of_its_own(ensure: Ensure, light: Environment, tmp_path: Path, said: list[str]) -> None:
    files = {"pyproject.toml": BACKEND_PROJECT, "backend.py": IN_TREE_BACKEND.format(extra="")}
    site = ensure(make_sdist(tmp_path, files))
    assert run(light, site, "-m", "trainer.task") == "built"
    assert said == ["Building the package: trainer-0.1.tar.gz", "Successfully installed trainer-0.1"]


def test_failing_build_has_its_own_words(ensure: Ensure, cache: RuntimeCache, tmp_path: Path, runtimes_dir) -> None:
    backend = IN_TREE_BACKEND.format(extra="raise RuntimeError('needs a compiler')")
    package = make_sdist(tmp_path, {"pyproject.toml": BACKEND_PROJECT, "backend.py": backend})
    with pytest.raises(PackageError, match=r"Building trainer-0\.1\.tar\.gz failed") as error:
        ensure(package)
    assert "RuntimeError: needs a compiler" in str(error.value)
    assert not list((runtimes_dir / "overlays").glob(".building-*"))


def test_wheel_for_another_platform_is_told(ensure: Ensure, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"trainer/task.py": ""}, tag="cp27-none-win32")
    with pytest.raises(PackageError, match=r"Installing trainer-0\.1-cp27-none-win32\.whl failed") as error:
        ensure(wheel)
    assert "win32" in str(error.value) or "not compatible" in str(error.value)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"p-1/readme.txt": ""}, "has neither setup.py nor pyproject.toml"),
        ({"setup.py": ""}, "do not lie in one folder"),
        ({"a/x": "", "b/x": ""}, "do not lie in one folder"),
    ],
)
def test_archive_that_is_no_package(ensure: Ensure, tmp_path: Path, files: dict[str, str], text: str) -> None:
    path = tmp_path / "p-1.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(PackageError, match=text):
        ensure(path)


def test_zip_named_as_a_wheel(ensure: Ensure, tmp_path: Path) -> None:
    path = tmp_path / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p.py", "")
    with pytest.raises(PackageError, match="is no wheel: it has no"):
        ensure(path)


def test_unreadable_package_leaves_nothing(ensure: Ensure, tmp_path: Path, runtimes_dir: Path) -> None:
    before = set((runtimes_dir / "overlays").iterdir()) if (runtimes_dir / "overlays").exists() else set()
    (tmp_path / "bad.tar.gz").write_text("no")
    with pytest.raises(PackageError, match="can't be read"):
        ensure(tmp_path / "bad.tar.gz")
    assert (set((runtimes_dir / "overlays").iterdir()) if (runtimes_dir / "overlays").exists() else set()) == before


def test_concurrent_callers_install_once(light: Environment, cache: RuntimeCache, tmp_path: Path) -> None:
    wheel, said, sites = make_wheel(tmp_path, {"trainer/task.py": str(tmp_path)}), [], []

    def ensure_once() -> None:
        own = RuntimeCache(light.directory.parent, Path(uv.find_uv_bin()))
        sites.append(own.ensure_overlay(light, [wheel], said.append))

    threads = [threading.Thread(target=ensure_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sites) == 6 and len(set(sites)) == 1 and said == ["Successfully installed trainer-0.1"]
