"""One engine for the tuning jobs of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.replicas import LIGHT_RUNTIME, write_light_catalogue
from enginehouse.testing.training import Trainings

__all__ = ["LIGHT_RUNTIME"]


@pytest.fixture(scope="session")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Trainings on an engine that knows a runtime of Python alone."""
    folder: Path = tmp_path_factory.mktemp("tuning")
    catalogue = write_light_catalogue(folder / "catalogue")
    engine = EngineProcess(
        folder / "data", {"ENGINEHOUSE_CATALOGUE_DIR": str(catalogue), "ENGINEHOUSE_CANCEL_GRACE_S": "2"}
    )
    engine.start()
    try:
        yield Trainings(lambda: engine.url, folder)
    finally:
        engine.stop()
