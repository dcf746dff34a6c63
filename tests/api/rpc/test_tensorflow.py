"""The stubs of tensorflow-serving-api, in a TensorFlow runtime, against an engine.

Slow: TensorFlow starts three times, and the runtime is built if need be.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import uv

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import connect
from enginehouse.testing.engine import EngineProcess

STUBS = "tensorflow-serving-api==2.21.0"


def run(python: Path, script: str, *arguments: str, path: Path | None = None) -> str:
    command = [str(python), str(Path(__file__).with_name(script)), *arguments]
    environ = None if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_stubs_of_tensorflow_serving(tmp_path: Path) -> None:
    uv_tool = Path(uv.find_uv_bin())
    python = (
        RuntimeCache(load_settings().runtimes_dir, uv_tool)
        .ensure(Catalogue.load().resolve("2.21", None), print)
        .python
    )
    stubs = tmp_path / "stubs"
    subprocess.run([uv_tool, "pip", "install", "--quiet", "--no-deps", "--target", stubs, STUBS], check=True)
    run(python, "make_served_model.py", str(tmp_path / "model"))
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_GRPC_PORT": "0"}) as engine:
        client = connect(data_dir=engine.data_dir)
        client.storage.create_bucket("models")
        for file in (tmp_path / "model").rglob("*"):
            if file.is_file():
                name = file.relative_to(tmp_path).as_posix()
                with file.open("rb") as content:
                    client.storage.upload(content, ObjectUri("models", name))
        client.models.create({"name": "served"})
        body = {
            "name": "v1",
            "deploymentUri": "gs://models/model",
            "runtimeVersion": "2.21",
            "framework": "TENSORFLOW",
        }
        client.operations.wait(client.versions("served").create(body))
        told = json.loads(run(python, "call_tf_serving.py", client.engine.status()["grpcAddress"], path=stubs))
    assert told == {
        "predict": {"x": [[3.0, 4.0], [6.0, 8.0]], "n": [2, 2**61], "half": [1.0, 2.0]},
        "types": {"x": "float32", "n": "int64", "half": "float16", "raw_bytes": "string"},
        "raw_bytes": ["61", "ff"],
        "negative": [[[0.75, 0.0], [0.5, 1.0]]],
        "classify": [[["low", 0.75], ["high", 0.25]], [["low", 0.0], ["high", 1.0]]],
        "regress": [0.5, 3.0],
        "signatures": ["classify", "negative", "regress", "serving_default"],
        "x": "(None, 2)",
        "state": [[1, 30]],
        "wrong": ["INVALID_ARGUMENT", "Field: inputs Error: The signature takes half, n, name, x; there came y."],
    }
