from pathlib import Path

import pytest

from enginehouse.testing.replicas import ReplicaFactory, write_light_catalogue


@pytest.fixture(scope="session")
def runtimes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the light runtime is built, once for all tests of the session."""
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture(autouse=True)
def light_catalogue(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue that runners inherit by the environment."""
    directory = write_light_catalogue(tmp_path_factory.getbasetemp() / "catalogue")
    monkeypatch.setenv("ENGINEHOUSE_CATALOGUE_DIR", str(directory))


@pytest.fixture
def replicas(tmp_path: Path, runtimes_dir: Path) -> ReplicaFactory:
    return ReplicaFactory(tmp_path / "packages", runtimes_dir)
