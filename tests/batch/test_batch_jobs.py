"""Batch prediction jobs from the request to the shards, on a real engine. Slow: a model is trained and served."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
import uv
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

import enginehouse
from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client, connect
from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
FEATURES, LABELS = load_iris(return_X_y=True)
FOREST = RandomForestClassifier(30, random_state=0).fit(FEATURES, LABELS)
RUNTIME = "scikit-learn-1.9"
SOURCES = Path(enginehouse.__file__).parent.parent


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("batch") / "data") as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: EngineProcess) -> Client:
    client = connect(data_dir=engine.data_dir)
    client.storage.create_bucket("iris")
    model = io.BytesIO()
    joblib.dump(FOREST, model)
    put(client, "model/model.joblib", model.getvalue())
    client.models.create({"name": "iris"})
    version = {"name": "v1", "deploymentUri": "gs://iris/model", "runtimeVersion": RUNTIME}
    client.operations.wait(client.versions("iris").create(version))
    return client


def put(client: Client, name: str, data: bytes) -> None:
    client.storage.upload(io.BytesIO(data), ObjectUri("iris", name))


def get(client: Client, name: str) -> bytes:
    return b"".join(client.storage.read(client.storage.stat(ObjectUri("iris", name))))


def submit(client: Client, job_id: str, **spec: Any) -> None:
    body = {
        "dataFormat": "JSON",
        "region": "us-central1",
        "outputPath": f"gs://iris/{job_id}",
        **(
            {}
            if "modelName" in spec or "uri" in spec
            else {"versionName": f"{parent(client)}/models/iris/versions/v1"}
        ),
        **spec,
    }
    client.jobs.create({"jobId": job_id, "predictionInput": body})


def parent(client: Client) -> str:
    return f"projects/{client.project}"


def ended(client: Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 240
    while "endTime" not in (job := client.jobs.get(job_id)):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def lines_of(table: Any) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in table.tolist()).encode()


def shards(client: Client, job_id: str) -> list[str]:
    return sorted(each.uri.name.partition("/")[2] for each in client.storage.list("iris", f"{job_id}/"))


ROWS = [FEATURES[::3], FEATURES[1::3]]


@pytest.mark.parametrize(
    ("data_format", "encode"),
    [
        ("CSV", lines_of),
        ("TEXT", lambda table: b"".join(json.dumps(row).encode() + b"\n" for row in table.tolist())),
        ("JSON", lambda table: gzip.compress(lines_of(table))),
    ],
)
def test_files_by_wildcard(client: Client, data_format: str, encode: Callable[[Any], bytes]) -> None:
    job_id = f"files_{data_format}"
    for number, table in enumerate(ROWS):
        suffix = "gz" if data_format == "JSON" else "txt"
        put(client, f"in/{data_format}-{number}.{suffix}", encode(table))
    submit(client, job_id, dataFormat=data_format, inputPaths=[f"gs://iris/in/{data_format}-*"])
    job = ended(client, job_id)
    assert job["state"] == "SUCCEEDED", job
    assert 0 < job["predictionOutput"].pop("nodeHours") < 0.1, "hundredths that were begun, of some seconds"
    assert job["predictionOutput"] == {
        "outputPath": f"gs://iris/{job_id}",
        "predictionCount": "100",
        "errorCount": "0",
    }
    assert "trainingOutput" not in job
    assert shards(client, job_id) == ["prediction.errors_stats-00000-of-00001", "prediction.results-00000-of-00001"]
    found = list(map(int, get(client, f"{job_id}/prediction.results-00000-of-00001").split()))
    assert found == FOREST.predict(np.concatenate(ROWS)).tolist()
    assert get(client, f"{job_id}/prediction.errors_stats-00000-of-00001") == b""


def test_a_model_at_a_uri_and_bad_rows(client: Client) -> None:
    put(client, "in/bad.csv", lines_of(FEATURES[:100:9]) + b"1,2,oops,4\n1,2\n" + lines_of(FEATURES[100::9]))
    submit(client, "at_uri", uri="gs://iris/model", inputPaths=["gs://iris/in/bad.csv"], batchSize="5")
    job = ended(client, "at_uri")
    assert (job["state"], job["predictionOutput"]["errorCount"]) == ("SUCCEEDED", "2")
    found = list(map(int, get(client, "at_uri/prediction.results-00000-of-00001").split()))
    assert found == FOREST.predict(np.concatenate([FEATURES[:100:9], FEATURES[100::9]])).tolist()
    errors = [json.loads(each) for each in get(client, "at_uri/prediction.errors_stats-00000-of-00001").splitlines()]
    assert [error["instance"] for error in errors] == ["1,2,oops,4", "1,2"]
    assert "could not convert string to float: 'oops'" in errors[0]["error"]
    assert "4 features" in errors[1]["error"]


def test_nothing_predicted_is_a_failure(client: Client) -> None:
    put(client, "in/words.txt", b"a,b,c,d\n")
    submit(client, "words", modelName=f"{parent(client)}/models/iris", inputPaths=["gs://iris/in/words.txt"])
    job = ended(client, "words")
    assert job["state"] == "FAILED"
    assert "None of the 1 instances got a prediction" in job["errorMessage"]


def test_wrong_requests(client: Client) -> None:
    with pytest.raises(InvalidArgument) as caught:
        submit(client, "wrong", inputPaths=[], dataFormat="DATA_FORMAT_UNSPECIFIED", uri="gs://x", batchSize="-1")
    fields = {violation.field for violation in caught.value.violations}
    assert fields >= {"prediction_input.input_paths", "prediction_input.data_format", "prediction_input.batch_size"}
    with pytest.raises(NotFound):
        submit(client, "wrong", modelName=f"{parent(client)}/models/nobody", inputPaths=["gs://iris/in/words.txt"])
    with pytest.raises(Exception, match=r"No object matches gs://iris/in/none\*"):
        submit(client, "wrong", inputPaths=["gs://iris/in/none*"])


def run_in(runtime: str, script: Path, *arguments: Path) -> None:
    """A script by the interpreter of a runtime, which is built if it is not there yet."""
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))
    python = cache.ensure(Catalogue.load().resolve(runtime, None), print).python
    command = [python, script, *arguments]
    done = subprocess.run(command, env={"PYTHONPATH": str(SOURCES)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_give_what_their_lines_give() -> None:
    """In a runtime, which has pandas."""
    run_in(RUNTIME, Path(__file__).with_name("tables.py"))


@pytest.mark.timeout(1200)
def test_pytorch(client: Client, tmp_path: Path) -> None:
    """Forks of a process that has imported PyTorch load and run its models: two at a time, and one alone."""
    run_in("pytorch-2.13", Path(__file__).parent.parent / "modelserver" / "make_pytorch_models.py", tmp_path)
    for path in (*tmp_path.glob("exported/*"), *tmp_path.glob("script/*")):
        put(client, f"pytorch/{path.parent.name}/{path.name}", path.read_bytes())
    put(client, "in/flowers.csv", lines_of(np.tile(FEATURES, (1000, 1))))
    found = []
    for kind, workers in (("exported", "2"), ("exported", "1"), ("script", "2")):
        job_id = f"pytorch_{kind}_{workers}"
        spec = {"uri": f"gs://iris/pytorch/{kind}", "runtimeVersion": "pytorch-2.13", "maxWorkerCount": workers}
        submit(client, job_id, dataFormat="CSV", inputPaths=["gs://iris/in/flowers.csv"], **spec)
        job = ended(client, job_id)
        assert job["state"] == "SUCCEEDED", job
        texts = [get(client, f"{job_id}/{name}") for name in shards(client, job_id) if "results" in name]
        assert len(texts) == (1 if workers == "1" else 3)
        found.append(np.array([json.loads(line) for line in b"".join(texts).splitlines()]))
        assert np.allclose(found[-1], np.tile(found[-1][: len(FEATURES)], (1000, 1)), atol=1e-6), "in order"
        assert np.allclose(found[-1].sum(axis=1), 1, atol=1e-5)
    assert np.allclose(found[0], found[1], atol=1e-6)


def processes(data_dir: Path) -> dict[str, list[int]]:
    """The processes of the jobs of an engine: runners, coordinators and their forks, the workers."""
    found: dict[str, list[int]] = {"runner": [], "coordinator": [], "worker": []}
    for process in psutil.process_iter():
        try:
            if os.fsencode(str(data_dir)) not in Path(f"/proc/{process.pid}/environ").read_bytes():
                continue
            command, parent = " ".join(process.cmdline()), process.parent()
        except (psutil.Error, OSError):
            continue
        if "replica/__main__" in command:
            found["runner"].append(process.pid)
        elif "bootstrap.py" in command:
            is_fork = parent is not None and "bootstrap.py" in " ".join(parent.cmdline())
            found["worker" if is_fork else "coordinator"].append(process.pid)
    return found


def test_killed_again_and_again(client: Client, engine: EngineProcess) -> None:
    """Workers, the coordinator, its runner and the engine, each at moments that nobody chose."""
    generator = random.Random(7)
    table = FEATURES[np.random.default_rng(0).integers(0, len(FEATURES), 220_000)]
    put(client, "in/long.csv", lines_of(table[:150_000]) + b"x,y\n" + lines_of(table[150_000:]))
    submit(client, "killed", dataFormat="CSV", inputPaths=["gs://iris/in/long.csv"], batchSize="64")
    killed = []
    for kind in ("worker", "coordinator", "engine", "worker", "runner", "coordinator"):
        time.sleep(generator.uniform(0.8, 2.2))
        if kind == "engine":
            engine.kill()
            time.sleep(0.5)
            engine.start()
            killed.append(kind)
        elif found := processes(engine.data_dir)[kind]:
            os.kill(generator.choice(found), signal.SIGKILL)
            killed.append(kind)
    job = ended(client, "killed")
    assert job["state"] == "SUCCEEDED", job
    assert set(killed) == {"worker", "coordinator", "engine", "runner"}
    assert job["predictionOutput"] | {"nodeHours": 0} == {
        "outputPath": "gs://iris/killed",
        "predictionCount": "220000",
        "errorCount": "1",
        "nodeHours": 0,
    }
    names = shards(client, "killed")
    results = [name for name in names if "results" in name]
    assert names == ["prediction.errors_stats-00000-of-00001", *results]
    assert len(results) > 1
    assert results == [f"prediction.results-{n:05}-of-{len(results):05}" for n in range(len(results))]
    found = np.array(b"".join(get(client, f"killed/{name}") for name in results).split(), dtype=int)
    assert np.array_equal(found, FOREST.predict(table))
    assert get(client, "killed/prediction.errors_stats-00000-of-00001").count(b"\n") == 1
    assert processes(engine.data_dir) == {"runner": [], "coordinator": [], "worker": []}
