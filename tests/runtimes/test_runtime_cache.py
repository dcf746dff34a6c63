import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uv

from enginehouse.runtimes.builder import site_packages
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.runtimes.errors import RuntimeBuildError
from enginehouse.runtimes.uvtool import Uv, settings_from_pip
from enginehouse.testing.packages import make_wheel
from enginehouse.testing.replicas import LIGHT_RUNTIME, wait_until

UV = Path(uv.find_uv_bin())


def catalogue_with(directory: Path, lock: str) -> Catalogue:
    """A catalogue whose runtime `small` is made of `lock`."""
    directory.mkdir(exist_ok=True)
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (directory / "small.toml").write_text(
        f'name = "small"\naliases = []\ndescription = ""\nchief_name = "chief"\npython_versions = ["{own}"]\n'
        'main_package = "thing"\nrequirements = ["thing==1.0"]\n[frameworks]\n'
    )
    (directory / "small.lock").write_text(lock)
    return Catalogue.load(extra=directory)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that stands for the package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_INDEX", "")
    return folder


def lock_of(wheel: Path) -> str:
    import hashlib

    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def test_builds_once_and_whole(tmp_path: Path, index: Path) -> None:
    script = "[console_scripts]\nthing = thing.core:main\n"
    wheel = make_wheel(index, {"thing/core.py": "def main(): print('thing runs')"}, name="thing", version="1.0",
                       entry_points=script)  # fmt: skip
    catalogue = catalogue_with(tmp_path / "catalogue", lock_of(wheel))
    cache, said = RuntimeCache(tmp_path / "cache", UV), []
    resolution = catalogue.resolve("small")
    assert cache.ready(resolution) is None
    environment = cache.ensure(resolution, said.append)
    python = resolution.python_version
    assert said[0] == f"Building runtime small (Python {python}, thing 1.0): this happens once."
    assert any(line.startswith("Installed 1 package in") for line in said)
    assert said[-1].startswith("Runtime small is ready: 1 packages,")
    assert environment.packages == {"thing": "1.0"} and environment.key.startswith(f"small-py{python}-")
    # It works where it is now, and so do its scripts; nothing names the place where it was built.
    assert subprocess.check_output([environment.python, "-m", "thing.core"]) == b""
    assert subprocess.check_output([environment.directory / "bin" / "thing"]) == b"thing runs\n"
    [compiled] = (site_packages(environment.directory) / "thing/__pycache__").glob("core.*.pyc")
    assert b".building" not in compiled.read_bytes() and str(environment.directory).encode() in compiled.read_bytes()
    assert not list((tmp_path / "cache").glob(".building-*"))
    again: list[str] = []
    assert RuntimeCache(tmp_path / "cache", None).ensure(resolution, again.append) == environment
    assert again == []


def test_a_distribution_stands_for_another(tmp_path: Path, index: Path) -> None:
    wheel = make_wheel(index, {"thing/core.py": ""}, name="thing_cpu", version="1.0")
    extra = tmp_path / "catalogue"
    catalogue_with(extra, lock_of(wheel))
    with (extra / "small.toml").open("a") as file:
        file.write('[provides]\nthing = "thing-cpu"\n')
    resolution = Catalogue.load(extra=extra).resolve("small")
    cache, said = RuntimeCache(tmp_path / "cache", UV), []
    environment = cache.ensure(resolution, lambda line: None)
    assert environment.packages == {"thing": "1.0", "thing-cpu": "1.0"}
    trainer = make_wheel(tmp_path, {"trainer/task.py": ""}, requires=["thing[extra]>=1"])
    cache.ensure_overlay(environment, [trainer], said.append)
    assert not [line for line in said if line.startswith("Successfully installed thing")]


def test_another_lock_is_another_environment(tmp_path: Path) -> None:
    cache = RuntimeCache(tmp_path, UV)
    first = cache.key(catalogue_with(tmp_path / "a", "# one\n").resolve("small"))
    assert first == cache.key(catalogue_with(tmp_path / "a", "# one\n").resolve("small"))
    assert first != cache.key(catalogue_with(tmp_path / "a", "# two\n").resolve("small"))


def test_wrong_hash_fails_with_the_tools_words(tmp_path: Path, index: Path) -> None:
    wheel = make_wheel(index, {"thing/core.py": ""}, name="thing", version="1.0")
    lock = lock_of(wheel)
    make_wheel(index, {"thing/core.py": "tampered = True"}, name="thing", version="1.0")
    resolution = catalogue_with(tmp_path / "catalogue", lock).resolve("small")
    cache = RuntimeCache(tmp_path / "cache", UV)
    with pytest.raises(RuntimeBuildError, match=r"Building runtime small failed \(uv ended with status") as error:
        cache.ensure(resolution, lambda line: None)
    assert "ash" in str(error.value)
    assert cache.ready(resolution) is None and not list((tmp_path / "cache").glob("*small*/"))


def test_no_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    resolution = catalogue_with(tmp_path / "c", "no-such-thing==1.0 --hash=sha256:" + "0" * 64 + "\n").resolve(
        "small"
    )
    with pytest.raises(RuntimeBuildError, match="The package index could not be reached"):
        RuntimeCache(tmp_path / "cache", UV).ensure(resolution, lambda line: None)


@pytest.mark.parametrize(("tool", "text"), [(None, "uv was not found"), (Path("/nowhere/uv"), "No such file")])
def test_without_uv(tmp_path: Path, tool: Path | None, text: str) -> None:
    resolution = catalogue_with(tmp_path / "catalogue", "").resolve("small")
    with pytest.raises(RuntimeBuildError, match=text):
        RuntimeCache(tmp_path / "cache", tool).ensure(resolution, lambda line: None)


def test_cache_that_cannot_be_written(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeBuildError, match="could not be built in"):
        RuntimeCache(tmp_path / "file" / "cache", UV).ensure(catalogue.resolve(LIGHT_RUNTIME), lambda line: None)


def test_concurrent_callers_build_once(tmp_path: Path, catalogue: Catalogue) -> None:
    resolution, said = catalogue.resolve(LIGHT_RUNTIME), []
    environments = []

    def ensure() -> None:
        environments.append(RuntimeCache(tmp_path, UV).ensure(resolution, said.append))

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(environments) == 4 and len({environment.directory for environment in environments}) == 1
    assert len([line for line in said if line.startswith("Building")]) == 1


def test_killed_build_leaves_nothing_half_made(tmp_path: Path, catalogue: Catalogue) -> None:
    resolution = catalogue.resolve(LIGHT_RUNTIME)
    slow = tmp_path / "uv"
    slow.write_text('#!/bin/sh\nfor last; do :; done\nmkdir -p "$last/bin"\necho $$ > "$last/pid"\nexec sleep 600\n')
    slow.chmod(0o755)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from enginehouse.runtimes.cache import RuntimeCache\nfrom enginehouse.runtimes.catalogue import Catalogue\n"
        "catalogue = Catalogue.load(extra=Path(sys.argv[1]))\n"
        f"RuntimeCache(Path(sys.argv[2]), Path(sys.argv[3])).ensure(catalogue.resolve({LIGHT_RUNTIME!r}), print)\n"
    )
    extra = resolution.lock.parent
    builder = subprocess.Popen(
        [sys.executable, "-c", code, extra, tmp_path / "cache", slow], stdout=subprocess.DEVNULL
    )
    pattern = f".building-{LIGHT_RUNTIME}-*/pid"
    [pid_file] = wait_until(lambda: [p for p in (tmp_path / "cache").glob(pattern) if p.read_text().strip()])
    builder.kill()
    builder.wait()
    subprocess.run(["kill", "-9", pid_file.read_text().strip()], check=True)
    cache = RuntimeCache(tmp_path / "cache", UV)
    assert cache.ready(resolution) is None
    cache.ensure(resolution, lambda line: None)
    assert cache.ready(resolution) is not None and not list((tmp_path / "cache").glob(".building-*"))


def test_environment_whose_interpreter_is_gone_is_built_again(tmp_path: Path, catalogue: Catalogue) -> None:
    resolution, cache = catalogue.resolve(LIGHT_RUNTIME), RuntimeCache(tmp_path, UV)
    environment = cache.ensure(resolution, lambda line: None)
    environment.python.unlink()
    environment.python.symlink_to("/nowhere/python")
    assert cache.ready(resolution) is None
    assert cache.ensure(resolution, lambda line: None).python.exists()
    assert not list(tmp_path.glob(".building-*"))


def test_settings_of_pip_reach_uv(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://a/simple\nextra-index-url =\n    https://b/simple\n    https://c/simple\n"
        "[install]\nfind-links = /x /y\ntrusted-host = a\n"
    )
    base = {"HOME": str(home), "PIP_INDEX_URL": "https://z/simple", "PIP_TIMEOUT": "7"}
    settings = settings_from_pip(base)
    assert settings.pop("SSL_CERT_FILE", None) in (None, "/etc/ssl/certs/ca-certificates.crt")  # this host's pip.conf
    assert settings == {
        "UV_DEFAULT_INDEX": "https://z/simple",
        "UV_INDEX": "https://b/simple https://c/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/x,/y",
        "UV_INSECURE_HOST": "a",
        "UV_HTTP_TIMEOUT": "7",
    }
    assert settings_from_pip({**base, "UV_DEFAULT_INDEX": "https://u"}) == {}
    (home / ".config/uv").mkdir()
    (home / ".config/uv/uv.toml").write_text("")
    assert settings_from_pip(base) == {}


def test_damaged_pip_conf_is_left_aside(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("no section")
    answer = settings_from_pip(
        {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_PROXY": "http://p:1"}
    )
    assert answer["ALL_PROXY"] == "http://p:1" and "UV_DEFAULT_INDEX" not in answer


def test_uv_gets_no_python_variables(tmp_path: Path) -> None:
    tool = tmp_path / "uv"
    tool.write_text('#!/bin/sh\nenv\necho "Resolved 1 package" >&2\n')
    tool.chmod(0o755)
    said: list[str] = []
    lines = Uv(tool, {"HOME": str(tmp_path), "PYTHONPATH": "x", "VIRTUAL_ENV": "y", "UV_INDEX": "z"}).run(
        "pip", doing="Testing", directory=tmp_path, progress=said.append
    )
    names = {line.split("=")[0] for line in lines}
    assert {"HOME", "UV_INDEX", "NO_COLOR"} <= names and not names & {"PYTHONPATH", "VIRTUAL_ENV"}
    assert said == ["Resolved 1 package"]


def test_marker_tells_what_is_inside(light, cache: RuntimeCache) -> None:
    marker = json.loads((light.directory / "runtime.json").read_text())
    assert marker["runtime"] == LIGHT_RUNTIME and marker["packages"] == {} and marker["size_bytes"] > 1000
