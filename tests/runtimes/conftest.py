from pathlib import Path

import pytest
import uv

from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.testing.replicas import LIGHT_RUNTIME, write_light_catalogue


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue.load(extra=write_light_catalogue(tmp_path_factory.mktemp("catalogue")))


@pytest.fixture(scope="session")
def runtimes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtimes")


@pytest.fixture
def cache(runtimes_dir: Path) -> RuntimeCache:
    return RuntimeCache(runtimes_dir, Path(uv.find_uv_bin()))


@pytest.fixture
def light(cache: RuntimeCache, catalogue: Catalogue) -> Environment:
    """The built light runtime."""
    return cache.ensure(catalogue.resolve(LIGHT_RUNTIME), lambda line: None)
