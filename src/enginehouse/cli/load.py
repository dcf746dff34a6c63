"""`mle predict --concurrency`: the same request again and again on several connections, and how fast it is answered.

Threads with keep-alive connections: good for thousands of requests a second, not for the limits of a server that
answers tens of thousands.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TIMEOUT_S = 120.0
OTHER = "no answer"


@dataclass
class Outcome:
    """What happened.

    Attributes:
        latencies_s: of the requests that were answered with predictions.
        failures: how many requests ended otherwise, by HTTP status, `prediction error` or `no answer`.
        seconds: from the first request to the last answer.
    """

    latencies_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def n_requests(self) -> int:
        return len(self.latencies_s) + self.failures.total()

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of the answered requests did not exceed; NaN without any."""
        ordered = sorted(self.latencies_s)
        if not ordered:
            return float("nan")
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    def summary(self, concurrency: int) -> dict[str, object]:
        """As the command shows it."""
        rounded = (
            {f"p{p}_ms": round(self.percentile_ms(p / 100), 3) for p in (50, 90, 99)} if self.latencies_s else {}
        )
        return {
            "concurrency": concurrency,
            "requests": self.n_requests,
            "seconds": round(self.seconds, 3),
            "requests_per_s": round(len(self.latencies_s) / self.seconds, 1) if self.seconds else 0.0,
            **rounded,
            "too_many_requests": self.failures["HTTP 429"],
            "errors": self.failures.total() - self.failures["HTTP 429"],
            **({"errors_by_kind": dict(self.failures)} if self.failures else {}),
        }


def run(
    url: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    concurrency: int,
    n_requests: int | None,
    duration_s: float | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Send `body` to `path` on `concurrency` connections, `n_requests` times or for `duration_s`."""
    outcome, lock = Outcome(), threading.Lock()
    left = iter(range(n_requests)) if n_requests is not None else None
    head = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}", *(f"{k}: {v}" for k, v in headers.items())]
    request = "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
    started_s = clock()

    def next_one() -> bool:
        if duration_s is not None and clock() - started_s >= duration_s:
            return False
        if left is None:
            return True
        with lock:
            return next(left, None) is not None

    def work() -> None:
        latencies: list[float] = []
        failures: Counter[str] = Counter()
        connection = _Connection(url)
        while next_one():
            sent_s = clock()
            failure = connection.ask(request)
            if failure is None:
                latencies.append(clock() - sent_s)
            else:
                failures[failure] += 1
        connection.close()
        with lock:
            outcome.latencies_s += latencies
            outcome.failures += failures

    threads = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcome.seconds = clock() - started_s
    return outcome


class _Connection:
    """A keep-alive connection that is opened again when it breaks."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> str | None:
        """What went wrong with one request; None for an answer with predictions."""
        try:
            if self._socket is None:
                self._socket = self._open()
            self._socket.sendall(request)
            status, answer = self._answer(self._socket)
        except (OSError, ValueError):
            self.close()
            return OTHER
        if status != 200:
            return f"HTTP {status}"
        return "prediction error" if answer.startswith(b'{"error"') else None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        host, secure = self._url.hostname or "", self._url.scheme == "https"
        made = socket.create_connection((host, self._url.port or (443 if secure else 80)), timeout=_TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ssl.create_default_context().wrap_socket(made, server_hostname=host) if secure else made

    def _answer(self, connection: socket.socket) -> tuple[int, bytes]:
        """Status and body; the engine says the length of all its answers.

        Raises:
            ValueError, OSError: the answer is none, or not whole.
        """
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more(connection)
        head, body = data[:end].lower(), data[end + 4 :]
        size_bytes = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        while len(body) < size_bytes:
            body += self._more(connection)
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    @staticmethod
    def _more(connection: socket.socket) -> bytes:
        data = connection.recv(256 * 1024)
        if not data:
            raise ConnectionResetError
        return data
