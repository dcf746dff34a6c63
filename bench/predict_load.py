"""A closed-loop HTTP load generator: so many connections, each with one request in flight, for so many seconds.

Run by `predict.py` in a process of its own, the same for both sides. Reads one JSON object from stdin:

    {"host": …, "port": …, "path": …, "connections": n, "warm_up_s": s, "seconds": s,
     "exchanges": [[request body, expected response body], …]}

and prints one: {"requests": n, "seconds": s, "latencies_us": {"p50": …, "p99": …}, "wrong": n}. Every answer is
compared byte for byte with what is expected.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

import uvloop


class Connection(asyncio.Protocol):
    """One connection that sends its next request as soon as the last one is answered."""

    def __init__(self, exchanges: list[tuple[bytes, bytes]], start: int) -> None:
        self._exchanges = exchanges
        self._next = start % len(exchanges)
        self._received = b""
        self._expected = b""
        self._sent_at = 0.0
        self.counting = False
        self.stopped = False
        self.latencies_s: list[float] = []
        self.wrong = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request, self._expected = self._exchanges[self._next]
        self._next = (self._next + 1) % len(self._exchanges)
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            self._received = data
            return
        self._received = b""
        if self.counting:
            self.latencies_s.append(time.perf_counter() - self._sent_at)
            self.wrong += not (head.startswith(b"HTTP/1.1 200") and body == self._expected)
        if not self.stopped:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopped:
            raise SystemExit("the server closed a connection")

    def close(self) -> None:
        self.stopped = True
        self._transport.close()


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    end = lowered.find(b"\r\n", start)
    return int(lowered[start : end if end >= 0 else None])


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Carry out the plan; the result is what this program prints."""
    exchanges = [(_request(plan, body), expected.encode()) for body, expected in plan["exchanges"]]
    loop = asyncio.get_running_loop()
    connections = []
    for number in range(plan["connections"]):
        connection = Connection(exchanges, number * 7)
        await loop.create_connection(lambda connection=connection: connection, plan["host"], plan["port"])
        connections.append(connection)
    await asyncio.sleep(plan["warm_up_s"])
    started = time.perf_counter()
    for connection in connections:
        connection.counting = True
    await asyncio.sleep(plan["seconds"])
    for connection in connections:
        connection.counting = False
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    latencies_s = sorted(latency for connection in connections for latency in connection.latencies_s)
    if not latencies_s:
        raise SystemExit("not one request was answered")
    return {
        "requests": len(latencies_s),
        "seconds": seconds,
        "latencies_us": {
            "p50": latencies_s[len(latencies_s) // 2] * 1e6,
            "p99": latencies_s[min(len(latencies_s) * 99 // 100, len(latencies_s) - 1)] * 1e6,
        },
        "wrong": sum(connection.wrong for connection in connections),
    }


def _request(plan: dict[str, Any], body: str) -> bytes:
    payload = body.encode()
    head = (
        f"POST {plan['path']} HTTP/1.1\r\nHost: {plan['host']}:{plan['port']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
