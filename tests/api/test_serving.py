"""Nodes, restarts and shared traffic of a real engine. Slow: serves models in a real runtime."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess

pytestmark = pytest.mark.slow

MAKE = """
import joblib, sys
from sklearn.dummy import DummyRegressor
for number in (1, 2):
    joblib.dump(DummyRegressor(strategy="constant", constant=number).fit([[0.0]], [0.0]), sys.argv[number])
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an engine with the model m, whose version v1 always says 1, and v2 2."""
    folder = tmp_path_factory.mktemp("serving")
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))
    python = cache.ensure(Catalogue.load().resolve("scikit-learn-1.9", None), print).python
    files = [folder / "1.joblib", folder / "2.joblib"]
    subprocess.run([python, "-c", MAKE, *files], check=True)
    with EngineProcess(folder / "data") as engine:
        client = connect(url=engine.url)
        client.storage.create_bucket("models")
        client.models.create({"name": "m"})
        for number, file in enumerate(files, 1):
            client.storage.upload_file(file, ObjectUri("models", f"{number}/model.joblib"))
            body = {
                "name": f"v{number}",
                "deploymentUri": f"gs://models/{number}",
                "runtimeVersion": "scikit-learn-1.9",
            }
            client.operations.wait(client.versions("m").create(body), timeout_s=120)
        yield client


def until(condition: Callable[[], Any], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(client: Client, count: int) -> list[float]:
    return [client.predict("m", None, [[0.0]])["predictions"][0] for _ in range(count)]


def test_traffic_is_shared_out_and_all_comes_back(client: Client) -> None:
    assert answers(client, 3) == [1.0] * 3
    client.models.set_traffic("m", {"v1": 50, "v2": 50}, {"max_latency_factor": 1000})
    until(lambda: 2.0 in answers(client, 5))
    assert set(answers(client, 60)) == {1.0, 2.0}
    client.versions("m").set_default("v2")  # the base now, and still shared out
    assert set(answers(client, 60)) == {1.0, 2.0}
    client.models.set_traffic("m", {}, {})
    assert answers(client, 10) == [2.0] * 10
    client.versions("m").set_default("v1")
    assert answers(client, 10) == [1.0] * 10


def test_nodes_come_and_go_as_asked_and_are_replaced(client: Client) -> None:
    versions = client.versions("m")
    signatures = versions.serving("v1")["signatures"]
    assert signatures["predict"]["inputs"]["instances"]["shape"] == [None, 1]
    versions.patch("v1", {"manualScaling": {"nodes": 2}}, ["manualScaling.nodes"])
    until(lambda: versions.serving("v1")["nodes"] == 2)
    assert versions.serving("v1")["decision"] == "at least 2 node(s) are asked for"
    versions.restart("v1")
    assert versions.serving("v1")["nodes"] == 2
    assert answers(client, 5) == [1.0] * 5
    versions.patch("v1", {"autoScaling": {"minNodes": 0, "maxNodes": 1}}, ["manualScaling", "autoScaling"])
    until(lambda: versions.serving("v1")["nodes"] == 1)
