"""A small HTTP server that answers what a test tells it to, for tests of clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to send back; `json_body` wins over `body`. `hang_up` closes the connection without an answer."""

    status: int = 200
    json_body: Any = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


Reply = Answer | dict[str, Any] | Callable[[Request], "Answer | dict[str, Any]"]


class FakeHttpEngine:
    """Listens on a free loopback port within a `with` block.

        with FakeHttpEngine() as engine:
            engine.on("GET", "/healthz", {"status": "ok"})

    A list of replies is given one after the other; the last one stays. Everything that arrived is in `requests`.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._replies: dict[tuple[str, str], list[Reply]] = {}
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                fake.connections += 1
                super().setup()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def _serve(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, url.path, dict(parse_qsl(url.query)), headers, body)
                answer = fake._answer(request)
                if answer.hang_up:
                    self.close_connection = True
                    return
                data = answer.body if answer.json_body is None else json.dumps(answer.json_body).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Answer requests to `path` (without its query) with `replies`, in their order."""
        self._replies[method, path] = list(replies)

    def of(self, method: str) -> list[Request]:
        """The requests of one method that arrived."""
        return [request for request in self.requests if request.method == method]

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            replies = self._replies.get((request.method, request.path))
            if not replies:
                message = f"{request.method} {request.path} was not expected."
                return error_answer(404, "NOT_FOUND", message)
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        told = reply(request) if callable(reply) else reply
        return told if isinstance(told, Answer) else Answer(json_body=told)

    def __enter__(self) -> FakeHttpEngine:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def error_answer(code: int, status: str, message: str, *violations: tuple[str, str]) -> Answer:
    """An error as the APIs answer it; `violations` are (field, description)."""
    error: dict[str, Any] = {"code": code, "status": status, "message": message}
    if violations:
        error["details"] = [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": name, "description": text} for name, text in violations],
            }
        ]
    return Answer(code, {"error": error})
