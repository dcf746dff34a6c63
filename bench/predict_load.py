"""A closed-loop HTTP load generator that compares servers: so many connections, each with one request in flight.

Run by `predict.py` in a process of its own. The servers take turns, slice by slice, so that both meet the same
moments of a noisy machine; while one is asked, the connections to the other are idle. Reads one JSON object from
stdin:

    {"sides": {NAME: {"host": …, "port": …, "path": …}}, "connections": n, "rounds": n, "warm_up_s": s, "slice_s": s,
     "exchanges": [[request body, expected response body], …]}

and prints {NAME: [{"requests": n, "seconds": s, "latencies_us": […]}, …]}, an element per round. Every answer is
compared byte for byte with what is expected; a wrong one ends the program.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

import uvloop

DRAIN_TIMEOUT_S = 30.0


class Connection(asyncio.Protocol):
    """One connection; while it is started it sends its next request as soon as the last one is answered."""

    def __init__(self, exchanges: list[tuple[bytes, bytes]], start: int) -> None:
        self._exchanges = exchanges
        self._next = start % len(exchanges)
        self._received = b""
        self._expected = b""
        self._sent_at = 0.0
        self._started = False
        self._closing = False
        self.counting = False
        self.latencies_s: list[float] = []
        self.idle = asyncio.Event()
        self.idle.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def start(self) -> None:
        self._started = True
        self.idle.clear()
        self._send()

    async def stop(self) -> None:
        """Send no more, and wait for the answer that is due."""
        self._started = False
        await asyncio.wait_for(self.idle.wait(), DRAIN_TIMEOUT_S)

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
        if not head.startswith(b"HTTP/1.1 200") or body != self._expected:
            _fail(f"wrong answer: {data!r}")
        if self._started:
            self._send()
        else:
            self.idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            _fail("the server closed a connection")

    def close(self) -> None:
        self._closing = True
        self._transport.close()


def _fail(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    sys.exit(1)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    end = lowered.find(b"\r\n", start)
    return int(lowered[start : end if end >= 0 else None])


async def run(plan: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Carry out the plan; the result is what this program prints."""
    connections = {name: await connect(side, plan) for name, side in plan["sides"].items()}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in connections}
    for _ in range(plan["rounds"]):
        for name, side_connections in connections.items():
            results[name].append(await one_slice(side_connections, plan["warm_up_s"], plan["slice_s"]))
    for side_connections in connections.values():
        for connection in side_connections:
            connection.close()
    return results


async def connect(side: dict[str, Any], plan: dict[str, Any]) -> list[Connection]:
    """Open the connections to one server; they begin at different exchanges."""
    exchanges = [(_request(side, body), expected.encode()) for body, expected in plan["exchanges"]]
    connections = []
    for number in range(plan["connections"]):
        connection = Connection(exchanges, number * 7)
        await asyncio.get_running_loop().create_connection(
            lambda connection=connection: connection, side["host"], side["port"]
        )
        connections.append(connection)
    return connections


async def one_slice(connections: list[Connection], warm_up_s: float, slice_s: float) -> dict[str, Any]:
    """Ask one server for a while, and wait until it has answered everything."""
    for connection in connections:
        connection.start()
    await asyncio.sleep(warm_up_s)
    started = time.perf_counter()
    for connection in connections:
        connection.counting = True
    await asyncio.sleep(slice_s)
    for connection in connections:
        connection.counting = False
    seconds = time.perf_counter() - started
    await asyncio.gather(*(connection.stop() for connection in connections))
    latencies_us = [round(latency * 1e6) for connection in connections for latency in connection.latencies_s]
    for connection in connections:
        connection.latencies_s.clear()
    return {"requests": len(latencies_us), "seconds": seconds, "latencies_us": latencies_us}


def _request(side: dict[str, Any], body: str) -> bytes:
    payload = body.encode()
    head = (
        f"POST {side['path']} HTTP/1.1\r\nHost: {side['host']}:{side['port']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))
