"""Several versions on one engine: another default under load, and more of them than there is memory for."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sklearn.linear_model import LinearRegression

from enginehouse.sdk.client import connect
from enginehouse.testing.engine import EngineProcess

from .conftest import deploy


def multiplier(factor: int) -> LinearRegression:
    return LinearRegression().fit([[0.0], [1.0]], [0.0, float(factor)])


@pytest.mark.slow
def test_another_default_version_loses_no_request(tmp_path: Path) -> None:
    """Slow: an engine and two model servers."""
    with EngineProcess(tmp_path / "data") as engine:
        client = connect(data_dir=engine.data_dir)
        for factor in (2, 3):
            deploy(client, "m", f"by_{factor}", multiplier(factor))
        over = threading.Event()

        def ask(seed: int) -> set[int]:
            """All factors that were met, every answer being right for one of the versions."""
            chance, own, met = random.Random(seed), connect(data_dir=engine.data_dir), set()
            while not over.is_set():
                number = chance.randrange(1, 1000)
                [answer] = own.predict("m", None, [[number]])["predictions"]
                met.add(round(answer / number))
                assert answer == pytest.approx(number * 2) or answer == pytest.approx(number * 3)
            return met

        with ThreadPoolExecutor(8) as threads:
            askers = [threads.submit(ask, seed) for seed in range(8)]
            try:
                for change in range(40):
                    factor = 2 + change % 2
                    client.versions("m").set_default(f"by_{factor}")
                    [answer] = client.predict("m", None, [[10]])["predictions"]
                    assert answer == pytest.approx(10 * factor)
            finally:
                over.set()
            assert all(asker.result() == {2, 3} for asker in askers)


@pytest.mark.long
def test_fifty_versions_live_in_the_memory_of_some(tmp_path: Path) -> None:
    """A model server has about 50 MiB: ten fit at most."""
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_SERVING_MEMORY": "500MiB"}) as engine:
        client = connect(data_dir=engine.data_dir)
        for number in range(1, 51):
            deploy(client, f"m{number}", "v1", multiplier(number))
        numbers = list(range(1, 51)) * 2
        random.Random(0).shuffle(numbers)

        def ask(number: int) -> float:
            [answer] = client.predict(f"m{number}", None, [[2]])["predictions"]
            return answer

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(ask, numbers))
        assert answers == pytest.approx([2 * number for number in numbers])
        serving = [client.versions(f"m{number}").serving("v1") for number in range(1, 51)]
        assert 0 < sum(each["memoryBytes"] for each in serving if each["nodes"]) < 500 * 1024**2
