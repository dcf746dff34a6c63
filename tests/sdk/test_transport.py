"""Requests, retries, errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enginehouse.core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from enginehouse.sdk.errors import EngineUnreachable, error_from_response, error_from_rpc_status
from enginehouse.sdk.transport import Transport
from enginehouse.testing.http import Answer, FakeHttpEngine, error_answer


@pytest.fixture
def engine() -> Iterator[FakeHttpEngine]:
    with FakeHttpEngine() as fake:
        yield fake


@pytest.fixture
def transport(engine: FakeHttpEngine) -> Iterator[Transport]:
    transport = Transport(lambda: engine.url, token="secret")
    yield transport
    transport.close()


def test_json_in_and_out_with_query_and_token(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("POST", "/v1/things", {"name": "a"})
    assert transport.json("POST", "/v1/things", {"x": 1}, query={"mask": "a,b", "none": None}) == {"name": "a"}
    request = engine.requests[0]
    assert request.json() == {"x": 1}
    assert request.query == {"mask": "a,b"}
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"


def test_one_connection_serves_many_requests(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("GET", "/x", {})
    for _ in range(5):
        transport.json("GET", "/x")
    assert engine.connections == 1


def test_api_error_becomes_its_class_with_violations(engine: FakeHttpEngine, transport: Transport) -> None:
    message = "Field: job_id Error: no good"
    engine.on("POST", "/j", error_answer(400, "INVALID_ARGUMENT", message, ("job_id", "no good")))
    with pytest.raises(InvalidArgument) as caught:
        transport.json("POST", "/j", {})
    assert caught.value.message == message
    assert caught.value.field == "job_id"


def test_a_connection_still_works_after_an_error(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("GET", "/bad", error_answer(404, "NOT_FOUND", "gone"))
    engine.on("GET", "/good", {"a": 1})
    with pytest.raises(NotFound):
        transport.json("GET", "/bad")
    assert transport.json("GET", "/good") == {"a": 1}
    assert engine.connections == 1


def test_get_is_sent_again_after_a_dropped_connection(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("GET", "/x", Answer(hang_up=True), Answer(hang_up=True), {"a": 1})
    assert transport.json("GET", "/x") == {"a": 1}
    assert len(engine.requests) == 3


def test_post_is_never_sent_again(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("POST", "/x", Answer(hang_up=True), {"a": 1})
    with pytest.raises(EngineUnreachable):
        transport.json("POST", "/x", {})
    assert len(engine.requests) == 1


def test_post_on_a_connection_that_the_engine_closed_meanwhile(engine: FakeHttpEngine, transport: Transport) -> None:
    """The server says nothing about closing, so only a look at the idle socket can tell."""
    engine.on("GET", "/x", Answer(json_body={}, headers={"Connection": "close"}))
    engine.on("POST", "/x", {"a": 1})
    transport.json("GET", "/x")
    assert transport.json("POST", "/x", {}) == {"a": 1}


def test_a_retry_asks_anew_where_the_engine_is(engine: FakeHttpEngine) -> None:
    engine.on("GET", "/x", {"a": 1})
    urls = ["http://127.0.0.1:1", engine.url]
    transport = Transport(lambda: urls.pop(0))
    assert transport.json("GET", "/x") == {"a": 1}
    transport.close()


def test_nothing_listens(engine: FakeHttpEngine) -> None:
    transport = Transport(lambda: "http://127.0.0.1:1")
    with pytest.raises(EngineUnreachable, match=r"No engine answers at http://127\.0\.0\.1:1.*mle up"):
        transport.json("POST", "/x", {})


def test_a_silent_engine(engine: FakeHttpEngine, transport: Transport) -> None:
    import threading

    release = threading.Event()

    def wait(_: object) -> Answer:
        release.wait(10)
        return Answer(hang_up=True)

    engine.on("POST", "/slow", wait)
    try:
        with pytest.raises(DeadlineExceeded):
            transport.request("POST", "/slow", timeout_s=0.05)
    finally:
        release.set()


def test_an_answer_that_is_not_json(engine: FakeHttpEngine, transport: Transport) -> None:
    engine.on("GET", "/x", Answer(body=b"<html>hello"))
    with pytest.raises(Internal, match=r"not JSON.*<html>hello"):
        transport.json("GET", "/x")


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (409, b'{"error":{"code":409,"status":"ALREADY_EXISTS","message":"there"}}', AlreadyExists, "there"),
        (400, b'{"error":{"code":400,"status":"FAILED_PRECONDITION","message":"m"}}', FailedPrecondition, "m"),
        (404, b'{"error":{"code":404,"message":"no status"}}', NotFound, "no status"),
        (500, b'{"error":"Prediction failed"}', Internal, "HTTP 500: Prediction failed"),
        (502, b"<html>", Internal, "HTTP 502: <html>"),
        (418, b"", InvalidArgument, "HTTP 418"),
        (403, b"[]", PermissionDenied, "HTTP 403: []"),
        (503, b'{"error":{"code":503,"status":"UNAVAILABLE","message":"later"}}', Unavailable, "later"),
    ],
)
def test_error_bodies(status: int, body: bytes, kind: type[Exception], message: str) -> None:
    error = error_from_response(status, body)
    assert type(error) is kind
    assert error.message == message == str(error)


def test_operation_errors_carry_grpc_codes() -> None:
    error = error_from_rpc_status({"code": 9, "message": "Bad model detected"})
    assert type(error) is FailedPrecondition
    assert str(error) == "Bad model detected"
