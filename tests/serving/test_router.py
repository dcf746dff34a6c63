"""The HTTP side of predictions, called as ASGI without a socket."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from enginehouse.core.errors import DeadlineExceeded, EngineError, Internal, NotFound, ResourceExhausted
from enginehouse.core.names import VersionName
from enginehouse.serving.router import PredictApp
from enginehouse.serving.traffic import Split, Traffic
from enginehouse.serving.types import Answer, ServedVersion

MODEL = "/v1/projects/p/models/m:predict"
VERSION = "/v1/projects/p/models/m/versions/v2:predict"


class Directory:
    """Knows the model m of project p with the versions v1 (default) and v2."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.default = "v1"
        self.split: Traffic | None = None

    def traffic(self, project: str, model_id: str) -> Traffic | None:
        return self.split

    def share(self, v1: int, v2: int) -> None:
        versions = {name: self.resolve("p", "m", name) for name in ("v1", "v2")}
        draws = itertools.cycle([number / 100 for number in range(100)])
        self.split = Traffic(Split({"v1": v1, "v2": v2}, "v1", versions), lambda: next(draws))

    def resolve(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        self.asked.append((project, model_id, version_id))
        version_id = version_id or self.default
        if (project, model_id) != ("p", "m") or version_id not in ("v1", "v2"):
            raise NotFound("Field: name Error: The specified model was not found.")
        return ServedVersion(VersionName(project, model_id, version_id), version_id, Path(), "SCIKIT_LEARN", Path())


class EchoPool:
    """Answers with the version and the length of the body."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.failing = "v1 v2"
        self.ready = ["v1", "v2"]
        self.woken: list[str] = []
        self.recalled: list[str] = []

    def is_ready(self, uid: str) -> bool:
        return uid in self.ready

    def wake(self, version: ServedVersion) -> None:
        self.woken.append(version.uid)

    async def predict(self, version: ServedVersion, body: bytes) -> Answer:
        if self.failure and version.uid in self.failing:
            raise self.failure
        return Answer(200, json.dumps({"predictions": [version.uid, len(body)]}).encode())

    def lender(self, uid: str) -> None:
        return None

    def recall(self, uid: str) -> None:
        self.recalled.append(uid)


class Client:
    """Sends requests into a PredictApp."""

    def __init__(self, max_body_bytes: int = 100) -> None:
        self.directory, self.pool = Directory(), EchoPool()
        self.verdicts: list[tuple[str, str, str]] = []
        self.app = PredictApp(
            self.directory,
            self.pool,  # type: ignore[arg-type]
            max_body_bytes=max_body_bytes,
            roll_back=lambda project, model, verdict: self.verdicts.append((project, model, verdict.version_id)),
        )

    def post(
        self, path: str, *chunks: bytes, method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": position < len(chunks) - 1}
            for position, chunk in enumerate(chunks)
        ]
        return self.send(path, messages, method, headers)

    def send(
        self, path: str, messages: list[dict[str, Any]], method: str = "POST", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in (headers or {}).items()],
        }
        try:
            asyncio.run(self.app(scope, receive, send))
        finally:
            self.sent = sent
        if not sent:
            return 0, {}, None
        start, body = sent
        answer_headers = {key.decode(): value.decode() for key, value in start["headers"]}
        assert int(answer_headers["content-length"]) == len(body["body"])
        return start["status"], answer_headers, json.loads(body["body"])


def test_whom_there_is_no_room_for_is_told_when_to_come_back() -> None:
    client = Client()
    client.pool.failure = ResourceExhausted("Too many pending prediction requests.")
    status, headers, body = client.post(MODEL, b"{}")
    assert (status, headers["retry-after"]) == (429, "1")
    assert body["error"]["status"] == "RESOURCE_EXHAUSTED"


def test_the_default_version_and_a_named_one() -> None:
    client = Client()
    status, headers, body = client.post(MODEL, b"12345")
    assert (status, body) == (200, {"predictions": ["v1", 5]})
    assert headers["content-type"] == "application/json; charset=UTF-8"
    assert client.post(VERSION, b"")[2] == {"predictions": ["v2", 0]}
    assert client.directory.asked == [("p", "m", None), ("p", "m", "v2")]


def test_a_body_in_pieces() -> None:
    assert Client().post(MODEL, b"12", b"", b"345", b"")[2] == {"predictions": ["v1", 5]}


def test_versions_are_looked_up_once_until_they_are_forgotten() -> None:
    client = Client()
    for _ in range(3):
        client.post(MODEL, b"")
        client.post(VERSION, b"")
    assert len(client.directory.asked) == 2
    client.directory.default = "v2"
    client.app.forget("p", "other")
    client.app.forget("other", "m")
    assert client.post(MODEL, b"")[2] == {"predictions": ["v1", 0]}
    client.app.forget("p", "m")
    assert set(client.pool.recalled) == {"v1", "v2"}
    assert client.post(MODEL, b"")[2] == {"predictions": ["v2", 0]}
    assert client.post(VERSION, b"")[2] == {"predictions": ["v2", 0]}
    assert len(client.directory.asked) == 4


@pytest.mark.parametrize(
    "path",
    [
        "/v1/projects/p/models/other:predict",
        "/v1/projects/p/models/m/versions/v9:predict",
        "/v1/projects/p/models:predict",
        "/v1/projects/p/models/m/versions:predict",
        "/v1/projects/p/models/m/versions/v1/more:predict",
        "/v2/projects/p/models/m:predict",
        "v1/projects/p/models/m:predict",
        ":predict",
    ],
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    client = Client()
    for _ in range(2):  # an error is not remembered
        status, _, body = client.post(path, b"{}")
        assert status == 404
        assert body["error"]["status"] == "NOT_FOUND"


def test_only_post_is_answered() -> None:
    status, _, body = Client().post(MODEL, b"", method="GET")
    assert (status, body["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [([b"x" * 101], {}), ([b"x" * 60, b"x" * 60, b""], {}), ([b""], {"content_length": "101"})],
)
def test_a_body_that_is_too_large(chunks: list[bytes], headers: dict[str, str]) -> None:
    status, answer_headers, body = Client().post(MODEL, *chunks, **headers)
    assert status == 413
    assert answer_headers["connection"] == "close"
    assert body["error"] == {
        "code": 413,
        "message": "Request payload size exceeds the limit: 100 bytes.",
        "status": "INVALID_ARGUMENT",
    }


def test_the_largest_body() -> None:
    assert Client().post(MODEL, b"x" * 40, b"x" * 60, content_length="100")[0] == 200


def test_a_client_that_hangs_up_gets_nothing() -> None:
    client = Client()
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    assert client.send(MODEL, messages)[0] == 0
    assert client.send(MODEL, [{"type": "http.disconnect"}])[0] == 0


def test_the_engines_errors_have_googles_shape() -> None:
    client = Client()
    error: EngineError = DeadlineExceeded("too slow")
    client.pool.failure = error
    status, headers, body = client.post(MODEL, b"{}")
    assert status == 504
    assert headers["content-type"] == "application/json; charset=UTF-8"
    assert body == {"error": {"code": 504, "message": "too slow", "status": "DEADLINE_EXCEEDED"}}


def test_a_bug_is_an_internal_error_and_reaches_the_log() -> None:
    client = Client()
    client.pool.failure = ZeroDivisionError("secret detail")
    with pytest.raises(ZeroDivisionError):
        client.post(MODEL, b"{}")
    assert client.sent[0]["status"] == 500
    assert b"secret" not in client.sent[1]["body"]


@pytest.mark.parametrize(
    ("scope", "mine"),
    [
        ({"type": "http", "path": MODEL}, True),
        ({"type": "http", "path": "/v1/projects/p/models/m"}, False),
        ({"type": "lifespan"}, False),
    ],
)
def test_which_requests_belong_here(scope: dict[str, Any], mine: bool) -> None:
    assert PredictApp.matches(scope) is mine


PATH = "/v1/projects/p/models/m:predict"


def who_answers(client: Client, count: int) -> list[str]:
    return [client.post(PATH, b"x")[2]["predictions"][0] for _ in range(count)]


def test_requests_are_shared_out_among_versions_that_are_ready() -> None:
    client = Client()
    client.directory.share(v1=75, v2=25)
    client.pool.ready = ["v1"]
    assert who_answers(client, 100) == ["v1"] * 100
    assert client.pool.woken == ["v1", "v2"]
    client.pool.ready = ["v1", "v2"]
    assert who_answers(client, 100).count("v2") == 25
    assert client.post("/v1/projects/p/models/m/versions/v1:predict", b"x")[2]["predictions"][0] == "v1"


def test_what_another_version_cannot_answer_the_base_does_and_it_is_taken_back() -> None:
    client = Client()
    client.directory.share(v1=50, v2=50)
    client.pool.failure, client.pool.failing = Internal("crashed"), "v2"
    assert who_answers(client, 200) == ["v1"] * 200
    assert client.verdicts == [("p", "m", "v2")]
    client.directory.split = None
    client.app.forget("p", "m")
    assert who_answers(client, 10) == ["v1"] * 10
    assert client.directory.asked[-1] == ("p", "m", None)


def test_the_base_s_own_failures_are_told() -> None:
    client = Client()
    client.directory.share(v1=100, v2=0)
    client.pool.failure = Internal("crashed")
    assert client.post(PATH, b"x")[0] == 500
    client.pool.failure = ResourceExhausted("too many")
    assert client.post(PATH, b"x")[0] == 429
    assert not client.verdicts
