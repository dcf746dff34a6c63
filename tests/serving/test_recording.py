"""Sampled requests: rows get into their table once, whatever happens; and on a real engine, queried with SQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from enginehouse.core.errors import InvalidArgument
from enginehouse.sdk.client import Client, connect
from enginehouse.serving import recording
from enginehouse.serving.recording import RequestRecorder, Row
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.engine import EngineProcess

from .conftest import deploy, run_mle

TABLE = "my-project.monitoring.iris"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(tmp_path: Path, clock: FakeClock) -> Iterator[LocalObjectStore]:
    store = LocalObjectStore(tmp_path / "objects", clock)
    yield store
    store.close()


def recorder(tmp_path: Path, storage: LocalObjectStore, clock: FakeClock) -> RequestRecorder:
    return RequestRecorder(storage, tmp_path / "spool", "sampled", clock, after_s=60)


def put(into: RequestRecorder, number: int, share: float = 1.0) -> None:
    into.record(TABLE, share, "iris", "v1", b'{"instances":[%d]}' % number, b'{"predictions":[%d]}' % (2 * number))


def rows(storage: LocalObjectStore, tmp_path: Path) -> list[Any]:
    """What DuckDB reads of the table."""
    folder = tmp_path / "read"
    folder.mkdir(exist_ok=True)
    for each in storage.list("sampled", prefix="my-project/monitoring/iris/").objects:
        _info, source = storage.open_read("sampled", each.name)
        with source:
            (folder / Path(each.name).name).write_bytes(source.read())
    return duckdb.sql(f"FROM read_parquet('{folder}/*.parquet') ORDER BY raw_data").fetchall()


def test_rows_have_bigquerys_columns(tmp_path: Path, storage: LocalObjectStore, clock: FakeClock) -> None:
    into = recorder(tmp_path, storage, clock)
    put(into, 3)
    into.flush()
    [(model, version, time, data, prediction, truth)] = rows(storage, tmp_path)
    assert (model, version, truth) == ("iris", "v1", None)
    assert json.loads(data) == {"instances": [3]}
    assert json.loads(prediction) == {"predictions": [6]}
    assert int(time.timestamp() * 1e9) == clock.time_ns()


def test_rows_wait_in_the_spool_until_it_is_time(tmp_path: Path, storage: LocalObjectStore, clock: FakeClock) -> None:
    into = recorder(tmp_path, storage, clock)
    put(into, 1)
    into._pass()
    clock.advance(30)
    put(into, 2)
    into._pass()
    assert storage.list_buckets() == []
    clock.advance(31)
    into._pass()
    assert len(rows(storage, tmp_path)) == 2
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_kill_loses_and_doubles_nothing_of_the_spool(
    tmp_path: Path, storage: LocalObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = recorder(tmp_path, storage, clock)
    for number in range(3):
        put(into, number)
    into._pass()
    [path] = (tmp_path / "spool").iterdir()
    with path.open("ab") as file:
        file.write(b'["iris", "v1", 17')  # torn by the kill
    unlink = Path.unlink

    def die_at_the_spool(path: Path, **more: Any) -> None:
        if path.suffix == ".jsonl":
            raise KeyboardInterrupt
        unlink(path, **more)

    # Killed after the object was written, before the file was removed: twice.
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", die_at_the_spool)
            with pytest.raises(KeyboardInterrupt):
                recorder(tmp_path, storage, clock).flush()
    following = recorder(tmp_path, storage, clock)
    put(following, 7)
    following._pass()
    following.flush()
    assert [json.loads(row[3])["instances"] for row in rows(storage, tmp_path)] == [[0], [1], [2], [7]]


def test_a_share_is_sampled(tmp_path: Path, storage: LocalObjectStore, clock: FakeClock) -> None:
    into = recorder(tmp_path, storage, clock)
    for number in range(2000):
        put(into, number, 0.25)
    assert 380 < len(into._waiting) < 620
    assert isinstance(into._waiting[0], Row)


def test_memory_is_bounded(
    tmp_path: Path, storage: LocalObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_MAX_WAITING_BYTES", 200)
    into = recorder(tmp_path, storage, clock)
    for _ in range(2):
        for number in range(10):
            put(into, number)  # of 37 bytes
        assert len(into._waiting) == 5
        into._pass()


# --- on an engine ---


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with EngineProcess(tmp_path / "data") as engine:
        client = connect(data_dir=engine.data_dir)
        deploy(client, "double", "v1", LinearRegression().fit(np.array([[0.0], [1.0]]), [0.0, 2.0]))
        yield client


@pytest.mark.slow
def test_requests_of_a_version_are_queried(client: Client, tmp_path: Path) -> None:
    """Slow: an engine and a model server."""

    mle = partial(run_mle, tmp_path / "data")
    versions = client.versions("double")
    for _ in range(3):
        client.predict("double", None, [[1.0]])  # on a lent connection from the second on
    bad = {"requestLoggingConfig": {"bigqueryTableName": "iris", "samplingPercentage": 1}}
    with pytest.raises(InvalidArgument, match=r"version.request_logging_config.bigquery_table_name"):
        versions.patch("v1", bad, ["requestLoggingConfig"])
    table = f"{client.project}.monitoring.double"
    mle("versions", "update", "v1", "--model", "double", "--bigquery-table-name", table, "--sampling-percentage", "1")
    assert versions.get("v1")["requestLoggingConfig"] == {"bigqueryTableName": table, "samplingPercentage": 1.0}
    for _ in range(3):  # the first is answered by the engine, the others on the connection that it lent
        assert client.predict("double", None, [[4.0]])["predictions"] == pytest.approx([8.0])
    assert client.predict("double", "v1", [[5.0]])["predictions"] == pytest.approx([10.0])
    assert table in mle("requests", "list")
    sql = "SELECT model, raw_data FROM monitoring.double ORDER BY raw_data"
    found = json.loads(mle("requests", "query", sql, "--format", "json"))
    assert [json.loads(row["raw_data"])["instances"] for row in found] == [[[4.0]]] * 3 + [[[5.0]]]
    assert json.loads(mle("requests", "query", f"SELECT count(*) AS n FROM `{table}`", "--format", "json")) == [
        {"n": 4}
    ]
    mle("versions", "update", "v1", "--model", "double", "--sampling-percentage", "0")
    client.predict("double", None, [[6.0]])
    count = ("requests", "query", "SELECT count(*) AS n FROM monitoring.double", "--format", "json")
    assert json.loads(mle(*count)) == [{"n": 4}]
    assert json.loads(mle(*count, "--project", "elsewhere")) == [{"n": 4}]  # there is no other table of that name
