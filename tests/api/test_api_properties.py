"""Requests of all kinds, made from the APIs' own discovery documents: the engine answers every one, and goes on.

Slow because there are two thousand of them.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import googleapiclient
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginehouse.testing.discovery import Call, calls
from enginehouse.testing.engine import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
TIMEOUT_S = 20.0
CASES = 1000
"""Of each API."""
KNOWN = {
    "projectsId": ["demo"],
    "jobsId": ["job_1"],
    "modelsId": ["iris"],
    "versionsId": ["v1"],
    "operationsId": ["none"],
    "locationsId": ["us-central1"],
    "bucket": ["bkt-known", "bkt-none"],
    "object": ["known", "dir/known", "none"],
    "sourceBucket": ["bkt-known"],
    "sourceObject": ["known"],
    "destinationBucket": ["bkt-known"],
    "destinationObject": ["copied"],
}


def calls_of(name: str) -> st.SearchStrategy[Call]:
    return calls(json.loads((DOCUMENTS / f"{name}.json").read_text()), KNOWN)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    # No job ever starts, whatever is submitted.
    quiet = {"ENGINEHOUSE_MAX_RUNNING_JOBS": "0", "ENGINEHOUSE_LOG_LEVEL": "ERROR"}
    with EngineProcess(tmp_path_factory.mktemp("engine") / "data", quiet) as engine:
        prepare(Api(engine.url))
        yield engine
        assert "Traceback" not in engine.log


def prepare(api: Api) -> None:
    """Make what the known names mean, where it is not there."""
    for target, body in (
        ("/v1/projects/demo/models", {"name": "iris"}),
        ("/storage/v1/b?project=demo", {"name": "bkt-known"}),
        ("/upload/storage/v1/b/bkt-known/o?uploadType=media&name=known", {"content": 1}),
        ("/upload/storage/v1/b/bkt-known/o?uploadType=media&name=dir/known", {"content": 2}),
    ):
        status, answer = api.send(Call("", "POST", target, json.dumps(body).encode()))
        assert status in (200, 409), answer


class Api:
    """One kept connection, opened anew when the server closes it."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)

    def send(self, call: Call) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"} if call.body is not None else {}
        for attempt in range(2):
            try:
                self._connection.request(call.verb, call.target, call.body, headers)
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                self._connection = self._connect()
                if attempt:
                    raise
        raise AssertionError


@pytest.mark.parametrize("name", ["ml.v1", "storage.v1"])
def test_every_request_is_answered(name: str, engine: EngineProcess) -> None:
    api = Api(engine.url)

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls_of(name))
    def check(call: Call) -> None:
        status, answer = api.send(call)
        assert status < 500, (call, status, answer)
        if status < 300 and (call.verb == "DELETE" or call.method.endswith(".move")):
            prepare(api)
        if status >= 400 and name == "ml.v1":
            error: dict[str, Any] = json.loads(answer)["error"]
            assert error["code"] == status, (call, answer)
            assert error["message"], (call, answer)

    check()
    assert api.send(Call("", "GET", "/healthz", None)) == (200, b'{\n  "status": "ok"\n}')
