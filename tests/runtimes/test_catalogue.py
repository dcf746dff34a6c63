import re
import sys
from pathlib import Path

import pytest
import uv

from enginehouse.core.errors import InvalidArgument
from enginehouse.runtimes.catalogue import Catalogue, Resolution, Runtime, built_in_files
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.testing.replicas import LIGHT_RUNTIME

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


class FakeInterpreters(Interpreters):
    def __init__(self, *versions: str) -> None:
        super().__init__()
        self._versions = versions

    def find(self, version: str) -> Path | None:
        return Path(f"/usr/bin/python{version}") if version in self._versions else None


def with_pythons(*versions: str) -> Catalogue:
    return Catalogue(built_in_files(), FakeInterpreters(*versions))


ORIGINAL = [f"1.{minor}" for minor in (0, 1, 2, *range(4, 16))] + [f"2.{minor}" for minor in range(1, 12)]
PACKAGES = {
    "TENSORFLOW": ("tensorflow", "tensorflow-cpu"),
    "SCIKIT_LEARN": ("scikit-learn",),
    "XGBOOST": ("xgboost", "xgboost-cpu"),
    "PYTORCH": ("torch",),
    "JAX": ("jax",),
    "ONNX": ("onnxruntime",),
}


def test_all_of_the_service_and_one_current_for_each_framework() -> None:
    runtimes = {runtime.name: runtime for runtime in Catalogue.load().runtimes()}
    assert list(runtimes)[: len(ORIGINAL)] == ORIGINAL
    assert set(runtimes) >= {"2.15", "2.21", "scikit-learn-1.9", "xgboost-3.2", "pytorch-2.13", "jax-0.10"}
    for name in ORIGINAL:
        runtime = runtimes[name]
        assert runtime.frameworks["TENSORFLOW"].startswith(name + ".")
        assert runtime.chief_name == ("master" if name.startswith("1.") else "chief")
        assert runtime.default_python == ("2.7" if name.startswith("1.") else "3.7")
        assert {"SCIKIT_LEARN"} | ({"XGBOOST"} if name not in ("1.0", "1.1", "1.2") else set()) < set(
            runtime.frameworks
        )
    assert set(runtimes["2.21"].frameworks) == {"TENSORFLOW", "SCIKIT_LEARN", "XGBOOST"}
    assert set(runtimes["scikit-learn-1.9"].frameworks) == {"SCIKIT_LEARN"}
    assert set(runtimes["xgboost-3.2"].frameworks) == {"XGBOOST", "SCIKIT_LEARN"}


@pytest.mark.parametrize(
    ("runtime", "python"),
    [
        (runtime, python)
        for runtime in Catalogue.load().runtimes()
        for python in {version[0]: version for version in runtime.python_versions}.values()
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_locks_hold_exact_versions_with_hashes_and_no_place(runtime: Runtime, python: str) -> None:
    text = runtime.lock(python).read_text()
    assert not re.search(r"://|file:|--index|--find|--extra|localhost", text)
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry
    pinned = dict(entry.split(" ")[0].split("==") for entry in entries)
    assert len(pinned) == len(entries)  # the same versions for each Python: one numpy
    for framework, version in runtime.frameworks.items():
        locked = next(pinned[name] for name in PACKAGES[framework] if name in pinned)
        assert locked.partition("+")[0] == version or python == "2.7", framework
    for name in runtime.provides.values():
        assert name in pinned
    for requirement in runtime.requirements:
        only = re.search(r"python_version (<|>=) '3'", requirement)
        if only and (only[1] == "<") != (python == "2.7"):
            continue
        if python == "2.7" and requirement.split(";")[0] in ("setuptools", "wheel"):
            continue
        assert re.split("[<=>;]", requirement)[0] in pinned


def test_resolves_names_and_aliases() -> None:
    catalogue = with_pythons("3.11", "3.12")
    resolution = catalogue.resolve("2.21.0", "3.12")
    assert (resolution.runtime.name, resolution.python_version) == ("2.21", "3.12")
    assert resolution.runtime.chief_name == "chief" and "asked for" in resolution.reason


def test_default_python_is_the_engines_own_then_the_first_that_is_here() -> None:
    assert with_pythons("3.11", "3.12", "3.13", OWN).resolve("2.21").python_version in (OWN, "3.11")
    assert with_pythons("3.13").resolve("2.21").python_version == "3.13"


@pytest.mark.parametrize(
    ("version", "python", "field", "text"),
    [
        ("1.3", None, "training_input.runtime_version", "'1.3'. Known are: 1.0, 1.1, 1.2, 1.4, "),
        ("1.8", "3.7", "training_input.python_version", "has Python 2.7, 3.5, 3.6, not '3.7'"),
        ("1.8", "2.7", "training_input.python_version", "Python 2.7 was not found on this host"),
        ("2.21", "2.7", "training_input.python_version", "has Python 3.11, 3.12, 3.13, not '2.7'"),
        ("2.21", "3.13", "training_input.python_version", "Python 3.13 was not found on this host"),
    ],
)
def test_wrong_request_names_the_field(version: str, python: str | None, field: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        with_pythons("3.11").resolve(version, python)
    assert error.value.field == field and text in error.value.message


@pytest.mark.parametrize(
    ("here", "version", "python", "chosen", "reason"),
    [
        (("2.7", "3.6"), "1.8", None, "2.7", "Python 2.7 is the runtime's default"),
        (("3.6",), "1.8", None, "3.6", "the default, 2.7, is not here, and code that needs it may not run"),
        (("2.7", "3.6"), "1.8", "3.5", "3.6", "Python 3.5 was asked for, and 3.6 is the nearest on this host"),
        (("3.6", "3.7"), "1.13", "3.6", "3.6", "Python 3.6 was asked for"),
        (("3.8", "3.9"), "2.5", None, "3.8", "the default, 3.7, is not on this host, and 3.8 is the nearest"),
        (("3.9", "3.10"), "2.8", "3.8", "3.9", "Python 3.8 was asked for, and 3.9 is the nearest on this host"),
    ],
)
def test_nearest_python_that_runs_the_same_code(
    here: tuple[str, ...], version: str, python: str | None, chosen: str, reason: str
) -> None:
    resolution = with_pythons(*here).resolve(version, python)
    assert resolution.python_version == chosen and reason in resolution.reason
    assert with_pythons().chosen(version, chosen, "so it was") == Resolution(resolution.runtime, chosen, "so it was")


def test_host_without_any_python_and_another_field_prefix() -> None:
    with pytest.raises(InvalidArgument, match=r"Field: version\.runtime_version Error: .*this host has none"):
        with_pythons().resolve("2.21", field="version")


def test_further_catalogue(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LIGHT_RUNTIME in catalogue.names() and "2.21" in catalogue.names()
    (tmp_path / "2.21.toml").write_text(
        'name = "2.21"\naliases = []\ndescription = "mine"\nchief_name = "master"\npython_versions = ["3.11"]\n'
        'main_package = ""\nrequirements = []\n[frameworks]\n'
    )
    monkeypatch.setenv("ENGINEHOUSE_CATALOGUE_DIR", str(tmp_path))
    [mine] = [runtime for runtime in Catalogue.load().runtimes() if runtime.name == "2.21"]
    assert mine.description == "mine" and mine.lock("3.11") == tmp_path / "2.21.lock"


@pytest.mark.parametrize("text", ["name =", 'name = "x"', 'name = "bad"', 'surprise = 1\nname = "x"'])
def test_file_that_is_no_runtime(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.toml does not describe a runtime"):
        Catalogue.load(extra=tmp_path).runtimes()


def test_finds_its_own_interpreter_and_none_that_is_not_there(tmp_path: Path, monkeypatch) -> None:
    interpreters = Interpreters(Path(uv.find_uv_bin()))
    own = interpreters.find(OWN)
    assert own is not None and own.exists() and ".venv" not in str(own)
    assert interpreters.find("3.4") is None
    # On PATH, a shim that runs nothing is passed over, and a real one is taken.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert Interpreters().find("3.99") is None
    real = tmp_path / "pyenv/versions/3.99.2/bin/python3.99"
    real.parent.mkdir(parents=True)
    real.write_text("#!/bin/sh\necho 3.99\n")
    real.chmod(0o755)
    assert Interpreters().find("3.99") == real
