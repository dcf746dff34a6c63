"""Access and console logs of versions: each line once, whatever ends; and on a real engine, by the logging API."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enginehouse.core.names import ObjectUri, VersionName
from enginehouse.sdk.client import Client, connect
from enginehouse.serving.child import put_aside
from enginehouse.serving.logs import PredictionLogs
from enginehouse.serving.types import ServedVersion
from enginehouse.telemetry.segments import LogRecord, LogWriter, SegmentStream
from enginehouse.telemetry.served import ACCESS, CONSOLE, version_log_path
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.engine import EngineProcess, make_sdist

from .conftest import run_mle


class Logs:
    """`PredictionLogs` of one version, again and again as engines come and go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.console = directory / "u1.log"
        python = Path(sys.executable)
        self.version = ServedVersion(VersionName("p", "m", "v"), "u1", directory, "X", python, logs_console=True)

    def open(self) -> PredictionLogs:
        served = [SimpleNamespace(version=self.version)]
        return PredictionLogs(self.directory, lambda: served, lambda uid: self.directory / f"{uid}.log", self.clock)

    def read(self, kind: str) -> list[LogRecord]:
        return SegmentStream(version_log_path(self.directory, "u1", kind), kind).read(0, 1000)[0]


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_requests_have_their_times_and_severities(logs: Logs) -> None:
    writer = logs.open()
    began_ns = logs.clock.time_ns()
    for status in (200, 429, 500):
        writer.access("u1", "POST", "/v1/m:predict", status, 10, 20, 0.0015)
        logs.clock.advance(1)
    writer.flush()
    assert [(each.severity, each.timestamp_ns - began_ns) for each in logs.read(ACCESS)] == [
        ("INFO", 0),
        ("WARNING", 10**9),
        ("ERROR", 2 * 10**9),
    ]
    first = logs.read(ACCESS)[0]
    assert first.message == "POST /v1/m:predict 200 1.5 ms"
    assert first.fields["http"] == {
        "requestMethod": "POST",
        "requestUrl": "/v1/m:predict",
        "requestSize": "10",
        "status": 200,
        "responseSize": "20",
        "latency": "0.0015s",
    }


def test_whole_lines_are_taken_over_once(logs: Logs) -> None:
    logs.open().flush()
    logs.console.write_bytes(b"loading\nha")
    logs.open().flush()
    assert [each.message for each in logs.read(CONSOLE)] == ["loading"]
    with logs.console.open("ab") as file:
        file.write(b"lf\r\n\xff\n")
    for _ in range(2):  # the next engine goes on where the last one was
        logs.open().flush()
    assert [each.message for each in logs.read(CONSOLE)] == ["loading", "half", "�"]
    with logs.console.open("ab") as file:
        file.write(b"last of the old file\n")
    logs.console.rename(put_aside(logs.console))
    logs.console.write_bytes(b"first of the new one\n")
    for _ in range(2):
        logs.open().flush()
    assert [each.message for each in logs.read(CONSOLE)[3:]] == ["last of the old file", "first of the new one"]


def test_a_full_disk_doubles_no_line(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = logs.open()
    logs.console.write_bytes(b"one\n")
    writer.flush()
    logs.console.write_bytes(b"one\ntwo\nthree\n")
    extend = LogWriter.extend

    def fill_up(log: LogWriter, records: Any) -> None:
        extend(log, records[:1])
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(LogWriter, "extend", fill_up)
        writer.flush()
    writer.flush()
    assert [each.message for each in logs.read(CONSOLE)] == ["one", "two", "three"]


# --- on an engine ---

MODEL = """
class Talkative:
    def predict(self, instances, **options):
        print("asked for", instances)
        return instances

    @classmethod
    def from_path(cls, path):
        return cls()
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with EngineProcess(tmp_path / "data") as engine:
        client = connect(data_dir=engine.data_dir)
        client.storage.create_bucket("models")
        client.storage.upload(
            io.BytesIO(make_sdist({"talkative/model.py": MODEL}, name="talkative")),
            ObjectUri("models", "talkative-1.0.tar.gz"),
        )
        client.storage.upload(io.BytesIO(b"-"), ObjectUri("models", "files/model.txt"))
        client.models.create({"name": "m", "onlinePredictionConsoleLogging": True})
        body = {
            "name": "v1",
            "deploymentUri": "gs://models/files",
            "runtimeVersion": "scikit-learn-1.9",
            "predictionClass": "talkative.model.Talkative",
            "packageUris": ["gs://models/talkative-1.0.tar.gz"],
        }
        client.operations.wait(client.versions("m").create(body))
        yield client


@pytest.mark.slow
def test_the_logs_of_a_version_are_read(client: Client, tmp_path: Path) -> None:
    """Slow: an engine, a package to install and a model server."""

    mle = partial(run_mle, tmp_path / "data")

    def entries(kind: str, n_wanted: int) -> list[Any]:
        """Those of a kind, as soon as there are so many."""
        wanted = (
            f'resource.type="cloudml_model_version" AND resource.labels.model_id="m" AND '
            f'logName="projects/{client.project}/logs/ml.googleapis.com%2F{kind}"'
        )
        give_up_at = time.monotonic() + 20
        while len(found := client.log_entries(wanted, newest=1000)) < n_wanted and time.monotonic() < give_up_at:
            time.sleep(0.1)
        return found

    client.predict("m", None, ["not told of"])
    mle("models", "update", "m", "--enable-logging")
    for instance in ("one", "two"):  # the first is answered by the engine, the second on the connection that it lent
        client.predict("m", "v1", [instance])
    first, second = entries(ACCESS, 2)
    assert first["httpRequest"]["requestUrl"].endswith("/models/m/versions/v1:predict")
    assert first["httpRequest"]["status"] == 200
    assert first["resource"]["labels"] == {"model_id": "m", "version_id": "v1", "project_id": client.project}
    assert {**second["httpRequest"], "latency": ""} == {**first["httpRequest"], "latency": ""}
    assert first["timestamp"] < second["timestamp"]
    printed = [entry["textPayload"] for entry in entries(CONSOLE, 3)]
    assert printed[-3:] == ["asked for ['not told of']", "asked for ['one']", "asked for ['two']"]
    shown = mle("versions", "logs", "v1", "--model", "m", "--kind", "console", "--limit", "1")
    assert shown.startswith("INFO\t") and shown.endswith("asked for ['two']\n")
    mle("models", "update", "m", "--no-enable-logging", "--no-enable-console-logging")
    client.predict("m", "v1", ["three"])
    assert len(entries(ACCESS, 2)) == 2
