"""A closed-loop HTTP load generator for machines without wrk: so many connections, each with one request in flight.

Run by `predict.py` in a process of its own. Reads one JSON object from stdin,

    {"url": …, "body": …, "token": …, "connections": n, "seconds": s}

and prints {"requests": n, "seconds": s, "p50_ms": …, "p99_ms": …, "errors": n}; an error is any status but 200.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop


class Connection(asyncio.Protocol):
    """One connection; it sends its next request as soon as the last one is answered."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._sent_at = 0.0
        self.latencies_s: list[float] = []
        self.errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            self._received = data
            return
        self._received = b""
        self.latencies_s.append(time.perf_counter() - self._sent_at)
        self.errors += not head.startswith(b"HTTP/1.1 200")
        self._send()

    def close(self) -> None:
        self._transport.close()


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    end = lowered.find(b"\r\n", start)
    return int(lowered[start : end if end >= 0 else None])


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out the plan; the result is what this program prints."""
    url = urlsplit(plan["url"])
    body = plan["body"].encode()
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: Bearer {plan['token']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: Connection(head.encode() + body), url.hostname, url.port))[1]
        for _ in range(plan["connections"])
    ]
    await asyncio.sleep(plan["seconds"])
    seconds = time.perf_counter() - started
    latencies_s = sorted(latency for connection in connections for latency in connection.latencies_s)
    for connection in connections:
        connection.close()
    if not latencies_s:
        raise SystemExit("not one request was answered")
    p50, p99 = (latencies_s[(len(latencies_s) - 1) * percent // 100] * 1000 for percent in (50, 99))
    errors = sum(connection.errors for connection in connections)
    return {"requests": len(latencies_s), "seconds": seconds, "p50_ms": p50, "p99_ms": p99, "errors": errors}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
