"""Following a job's log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from enginehouse.core.errors import NotFound, Unavailable
from enginehouse.sdk.client import Client
from enginehouse.sdk.logs import follow
from enginehouse.sdk.transport import Transport
from enginehouse.testing.http import Answer, FakeHttpEngine, error_answer

LOGS = "/enginehouse/v1/projects/p/jobs/j/logs"


@pytest.fixture
def engine() -> Iterator[FakeHttpEngine]:
    with FakeHttpEngine() as fake:
        yield fake


@pytest.fixture
def client(engine: FakeHttpEngine) -> Client:
    return Client(Transport(lambda: engine.url), "p")


def page(*messages: str, cursor: str, ended: bool = False) -> dict[str, Any]:
    return {"entries": [{"message": text} for text in messages], "cursor": cursor, "ended": ended}


def test_pages_until_the_end(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", LOGS, page("a", "b", cursor="2"), page(cursor="2"), page("c", cursor="3", ended=True))
    assert [entry["message"] for entry in follow(client.jobs, "j")] == ["a", "b", "c"]
    assert [request.query.get("cursor", "") for request in engine.requests] == ["", "2", "2"]
    assert [float(request.query["waitS"]) for request in engine.requests] == [0, 20, 20]


def test_an_engine_that_restarts_loses_no_line(engine: FakeHttpEngine, client: Client) -> None:
    away = error_answer(503, "UNAVAILABLE", "shutting down")
    engine.on("GET", LOGS, page("a", cursor="1"), away, away, page("b", cursor="2", ended=True))
    lost: list[Unavailable] = []
    slept: list[float] = []
    entries = list(follow(client.jobs, "j", on_lost=lost.append, sleep=slept.append))
    assert [entry["message"] for entry in entries] == ["a", "b"]
    assert [str(error) for error in lost] == ["shutting down"], "told once per outage"
    assert len(slept) == 2
    assert engine.requests[-1].query["cursor"] == "1"


def test_patience_ends(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", LOGS, page(cursor="0"), error_answer(503, "UNAVAILABLE", "away"))
    slept: list[float] = []
    with pytest.raises(Unavailable, match="away"):
        list(follow(client.jobs, "j", patience_s=3, sleep=slept.append))
    assert sum(slept) == 3


def test_no_engine_at_the_start_is_an_error_at_once(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", LOGS, error_answer(503, "UNAVAILABLE", "away"))
    with pytest.raises(Unavailable):
        list(follow(client.jobs, "j", sleep=lambda _: pytest.fail("waited")))


def test_an_unknown_job(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", LOGS, error_answer(404, "NOT_FOUND", "no job"))
    with pytest.raises(NotFound, match="no job"):
        list(follow(client.jobs, "j"))


def test_a_dropped_long_poll_is_taken_up_again(engine: FakeHttpEngine, client: Client) -> None:
    engine.on("GET", LOGS, page("a", cursor="1"), Answer(hang_up=True), page("b", cursor="2", ended=True))
    assert [entry["message"] for entry in follow(client.jobs, "j")] == ["a", "b"]
