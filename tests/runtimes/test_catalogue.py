import re
import sys
from pathlib import Path

import pytest
import uv

from enginehouse.core.errors import InvalidArgument
from enginehouse.runtimes import catalogue as catalogue_module
from enginehouse.runtimes.catalogue import Catalogue, Runtime
from enginehouse.runtimes.interpreters import Interpreters
from enginehouse.testing.replicas import LIGHT_RUNTIME

BUILT_IN = Path(catalogue_module.__file__).parent / "catalogue"
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


class FakeInterpreters(Interpreters):
    def __init__(self, *versions: str) -> None:
        super().__init__()
        self._versions = versions

    def find(self, version: str) -> Path | None:
        return Path(f"/usr/bin/python{version}") if version in self._versions else None


def with_pythons(*versions: str) -> Catalogue:
    return Catalogue(sorted(BUILT_IN.glob("*.toml")), FakeInterpreters(*versions))


def test_one_runtime_for_each_framework() -> None:
    runtimes = {runtime.name: runtime for runtime in Catalogue.load().runtimes()}
    assert set(runtimes) >= {"2.21", "scikit-learn-1.9", "xgboost-3.2"}
    assert set(runtimes["2.21"].frameworks) == {"TENSORFLOW", "SCIKIT_LEARN", "XGBOOST"}
    assert set(runtimes["scikit-learn-1.9"].frameworks) == {"SCIKIT_LEARN"}
    assert set(runtimes["xgboost-3.2"].frameworks) == {"XGBOOST", "SCIKIT_LEARN"}


@pytest.mark.parametrize("runtime", Catalogue.load().runtimes(), ids=lambda runtime: runtime.name)
def test_locks_hold_exact_versions_with_hashes_and_no_place(runtime: Runtime) -> None:
    text = runtime.lock.read_text()
    assert not re.search(r"://|file:|--index|--find|--extra|localhost", text)
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+ ", entry), entry
        assert "--hash=sha256:" in entry, entry
    pinned = dict(entry.split(" ")[0].split("==") for entry in entries)
    assert len(pinned) == len(entries)  # the same versions for each Python: one numpy
    for framework, package in (("TENSORFLOW", "tensorflow-cpu"), ("SCIKIT_LEARN", "scikit-learn")):
        assert runtime.frameworks.get(framework) == pinned.get(package)
    assert runtime.frameworks.get("XGBOOST") == pinned.get("xgboost-cpu")
    assert {"pandas", "joblib", "google-cloud-storage", "gcsfs", "orjson", "setuptools", "wheel"} <= set(pinned)
    for requirement in runtime.requirements:
        assert re.split("[<=>]", requirement)[0] in pinned


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
        ("1.8", None, "training_input.runtime_version", "'1.8'. Known are: 2.21, scikit-learn-1.9, xgboost-3.2."),
        ("2.21", "2.7", "training_input.python_version", "has Python 3.11, 3.12, 3.13, not '2.7'"),
        ("2.21", "3.13", "training_input.python_version", "Python 3.13 was not found on this host"),
    ],
)
def test_wrong_request_names_the_field(version: str, python: str | None, field: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        with_pythons("3.11").resolve(version, python)
    assert error.value.field == field and text in error.value.message


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
    assert mine.description == "mine" and mine.lock == tmp_path / "2.21.lock"


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
