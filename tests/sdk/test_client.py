"""Resources and operations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enginehouse.core.errors import DeadlineExceeded, FailedPrecondition
from enginehouse.sdk.client import Client
from enginehouse.sdk.operations import Operations
from enginehouse.sdk.transport import Transport
from enginehouse.testing.http import FakeHttpEngine, error_answer

OPERATION = "projects/p/operations/create_iris_v1"


@pytest.fixture
def engine() -> Iterator[FakeHttpEngine]:
    with FakeHttpEngine() as fake:
        yield fake


@pytest.fixture
def client(engine: FakeHttpEngine) -> Client:
    return Client(Transport(lambda: engine.url), "p")


def test_lists_follow_page_tokens(engine: FakeHttpEngine, client: Client) -> None:
    engine.on(
        "GET", "/v1/projects/p/jobs", {"jobs": [{"jobId": "a"}], "nextPageToken": "t"}, {"jobs": [{"jobId": "b"}]}
    )
    assert [job["jobId"] for job in client.jobs.list()] == ["a", "b"]
    assert engine.requests[1].query["pageToken"] == "t"


def test_an_empty_list_has_no_key(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", "/v1/projects/p/models", {})
    assert list(client.models.list()) == []


def test_patch_names_its_fields_sorted(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("PATCH", "/v1/projects/p/models/m", {"name": OPERATION})
    client.models.patch("m", {"labels": {}, "description": "x"}, ["labels", "description"])
    assert engine.requests[0].query == {"updateMask": "description,labels"}


def test_predict_with_and_without_version(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("POST", "/v1/projects/p/models/m:predict", {"predictions": [0]})
    engine.on("POST", "/v1/projects/p/models/m/versions/v1:predict", {"predictions": [1]})
    assert client.predict("m", None, [[1.0]]) == {"predictions": [0]}
    assert client.predict("m", "v1", [[1.0]], signature_name="s") == {"predictions": [1]}
    assert [request.json() for request in engine.requests] == [
        {"instances": [[1.0]]},
        {"instances": [[1.0]], "signature_name": "s"},
    ]


def test_exists(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", "/v1/projects/p/jobs/there", {"jobId": "there"})
    engine.on("GET", "/v1/projects/p/jobs/gone", error_answer(404, "NOT_FOUND", "gone"))
    assert client.jobs.exists("there")
    assert not client.jobs.exists("gone")


def test_wait_polls_until_done(engine: FakeHttpEngine) -> None:
    done = {"name": OPERATION, "done": True, "response": {"@type": "t", "name": "v1"}}
    engine.on("GET", f"/v1/{OPERATION}", {"name": OPERATION}, done)
    slept: list[float] = []
    polls: list[None] = []
    operations = Operations(Transport(lambda: engine.url), "/v1/projects/p", sleep=slept.append)
    response = operations.wait({"name": OPERATION}, on_poll=lambda: polls.append(None))
    assert response == {"name": "v1"}
    assert len(slept) == len(polls) == 2


def test_wait_raises_the_operations_error(client: Client) -> None:
    with pytest.raises(FailedPrecondition, match="Bad model"):
        client.operations.wait({"name": OPERATION, "done": True, "error": {"code": 9, "message": "Bad model"}})


def test_wait_gives_up(engine: FakeHttpEngine) -> None:
    engine.on("GET", f"/v1/{OPERATION}", {"name": OPERATION})
    operations = Operations(Transport(lambda: engine.url), "/v1/projects/p", sleep=lambda _: None)
    with pytest.raises(DeadlineExceeded, match="not done after 2 s"):
        operations.wait({"name": OPERATION}, timeout_s=2)
