"""`mle predict --concurrency`: against a server that answers as ordered, and what it tells of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from enginehouse.cli.load import Outcome, run

Serve = Callable[[list[tuple[int, bytes]]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that gives the answers in turn, again and again; its address."""
    running: list[ThreadingHTTPServer] = []

    def serve(answers: list[tuple[int, bytes]]) -> str:
        numbers, lock = iter(range(10**9)), threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    status, body = answers[next(numbers) % len(answers)]
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


def ask(url: str, concurrency: int, n_requests: int) -> Outcome:
    return run(url, "/x", b"{}", {"A": "b"}, concurrency=concurrency, n_requests=n_requests, duration_s=None)


def test_every_request_is_counted_by_what_came_of_it(serve: Serve) -> None:
    good, busy, bad, gone = (200, b'{"predictions":[1]}'), (429, b"{}"), (200, b'{"error":"x"}'), (0, b"")
    outcome = ask(serve([good, busy, bad, good, gone]), 4, 50)
    assert len(outcome.latencies_s) == 20
    assert outcome.failures == {"HTTP 429": 10, "prediction error": 10, "no answer": 10}
    summary = outcome.summary(4)
    assert (summary["requests"], summary["too_many_requests"], summary["errors"]) == (50, 10, 20)
    assert 0 < summary["p50_ms"] <= summary["p90_ms"] <= summary["p99_ms"]  # type: ignore[operator]


def test_nobody_there() -> None:
    outcome = ask("http://127.0.0.1:9", 2, 4)
    assert outcome.failures == {"no answer": 4}
    assert "p50_ms" not in outcome.summary(2)


def test_for_a_time(serve: Serve) -> None:
    url = serve([(200, b'{"predictions":[1]}')])
    times = iter(range(10**6))
    outcome = run(
        url, "/x", b"{}", {}, concurrency=1, n_requests=None, duration_s=10, clock=lambda: float(next(times))
    )
    assert len(outcome.latencies_s) == 3, "each request looks three times at the clock"


def test_percentiles() -> None:
    outcome = Outcome([each / 1000 for each in range(1, 101)], seconds=2.0)
    assert [round(outcome.percentile_ms(share)) for share in (0.5, 0.9, 0.99)] == [51, 91, 100]
    assert outcome.summary(8)["requests_per_s"] == 50.0
