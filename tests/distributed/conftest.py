"""One engine for all distributed trainings of a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.training import Trainings


@pytest.fixture(scope="session", params=["fresh", pytest.param("warm", marks=pytest.mark.long)])
def trainings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """Trainings on an engine that lets jobs run without the GPUs they ask for; `warm`: forked where they can be."""
    folder: Path = tmp_path_factory.mktemp("distributed")
    engine = EngineProcess(
        folder / "data",
        {
            "ENGINEHOUSE_ALLOW_MISSING_ACCELERATORS": "*",
            "ENGINEHOUSE_CANCEL_GRACE_S": "2",
            "ENGINEHOUSE_WARM_POOL": "4" if request.param == "warm" else "0",
        },
    )
    engine.start()
    try:
        yield Trainings(lambda: engine.url, folder)
    finally:
        engine.stop()
