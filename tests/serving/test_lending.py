"""Connections that are lent to model servers, through uvicorn and real sockets.

The slow part is the fifty starts of a model server, a second each.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.api.lendable import LendableProtocol
from enginehouse.modelserver.frames import EXPLAIN
from enginehouse.modelserver.journal import Journal, counts
from enginehouse.modelserver.lent import MAX_REQUEST_BYTES, Incomplete, Lent, NotOurs
from enginehouse.modelserver.telling import Ring, Told
from enginehouse.serving.hearing import Hearing
from enginehouse.serving.lending import Head
from enginehouse.serving.logs import Access
from enginehouse.serving.metrics import render
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.recording import Row
from enginehouse.serving.router import PredictApp
from enginehouse.serving.types import Sample, ServedVersion

from .conftest import EXIT, PID, RAISE, SLEEP, running_pool, until

Run = Callable[[Any], Any]
PATH = "/v1/projects/p/models/m:predict"


class OneVersion:
    """A directory that knows one version."""

    def __init__(self, version: ServedVersion) -> None:
        self._version = version

    def traffic(self, project: str, model_id: str) -> None:
        return None

    def resolve(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        return self._version


class Front:
    """PredictApp behind uvicorn, and clients for it."""

    def __init__(self, pool: ServerPool, version: ServedVersion) -> None:
        self.pool, self.version = pool, version
        self.rows: list[Row] = []
        self.accesses: list[Access] = []
        self.hearing = Hearing(self.rows.append, self.accesses.append)
        self.app = PredictApp(
            OneVersion(version),
            pool,
            max_body_bytes=1 << 20,
            record=lambda table, _share, *rest: self.rows.append(Row(table, *rest[:2], 0, *rest[2:])),
            log_access=lambda uid, *rest: self.accesses.append(Access(uid, 0, *rest)),
            listen_to=self.hearing.listen_to,
        )
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Front]:
        async with serving(self.app) as self.port:
            yield self

    @property
    def n_lent(self) -> int:
        lender = self.pool.lender(self.version.uid)
        return 0 if lender is None else len(lender)


@contextlib.asynccontextmanager
async def serving(app: Any, protocol: type[LendableProtocol] = LendableProtocol) -> AsyncIterator[int]:
    """The port at which uvicorn serves an application."""
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


class Client:
    """A keep-alive connection."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._front.port)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.writer.close()

    async def predict(self, *numbers: int, header: str = "x: y") -> Any:
        self.send(*numbers, header=header)
        return await self.receive()

    def send(self, *numbers: int, header: str = "x: y") -> None:
        self.writer.write(request(*numbers, header=header))

    async def receive(self) -> Any:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = json.loads(await self.reader.readexactly(int(length.split(b":")[1])))
        return body.get("predictions", body)


def request(*numbers: int, header: str = "x: y") -> bytes:
    return request_of(json.dumps({"instances": [[number] for number in numbers]}), header)


def request_of(body: str, header: str = "x: y") -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n"
    return (head + body).encode()


@contextlib.asynccontextmanager
async def running_front(version: ServedVersion, logs_dir: Path, **limits: Any) -> AsyncIterator[Front]:
    async with running_pool(logs_dir, **limits) as pool, Front(pool, version).running() as front:
        yield front


def test_a_connection_is_lent_after_its_first_answer(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, Client(front) as client:
            assert await client.predict(1, 2) == [2, 4]
            assert front.n_lent == 1
            for number in range(200):
                assert await client.predict(number, 7) == [2 * number, 14]
            lender = front.pool.lender(obedient.uid)
            assert lender is not None
            await until(lambda: lender.n_answers == 200)  # counted when it is out

    run(scenario())


def test_what_is_counted_outlives_the_model_server(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, Client(front) as client:
            for number in range(10):
                await client.predict(number)
            [group] = front.pool.groups()
            await group.nodes[0].stop()
            assert await client.predict(1) == [2]
            text = render(front.pool)
            labels = 'project="p",model="m",version="v"'
            for phase in ("queue", "decode", "model", "encode"):
                name = f'enginehouse_prediction_phase_seconds_bucket{{{labels},phase="{phase}",le="+Inf"}}'
                assert f"{name} 11\n" in text
            assert f"enginehouse_model_server_up{{{labels}}} 1\n" in text
            batches = [line for line in text.splitlines() if line.startswith("enginehouse_prediction_batches_total")]
            assert sum(int(line.split()[-1]) for line in batches) == 11

    run(scenario())


def test_explanations_are_counted_apart(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    version = dataclasses.replace(obedient, explanation='{"sampledShapleyAttribution": {"numPaths": 2}}')

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            for body in (b'{"instances": [[1]]}', b'{"instances": [[2], [3]]}', b"nonsense"):
                await pool.predict(version, body, EXPLAIN)
            [group] = pool.groups()
            assert group.n_answered == 3  # for lastUseTime
            await group.nodes[0].stop()
            lines = dict(line.rsplit(" ", 1) for line in render(pool).splitlines() if not line.startswith("#"))
            for phase, n_requests in {"queue": "3", "decode": "3", "model": "2", "encode": "2"}.items():
                labels = f'{{project="p",model="m",version="v",phase="{phase}"}}'
                assert lines[f"enginehouse_explanation_phase_seconds_count{labels}"] == n_requests
                assert float(lines[f"enginehouse_explanation_phase_seconds_sum{labels}"]) > 0
                assert lines[f"enginehouse_prediction_phase_seconds_count{labels}"] == "0"

    run(scenario())


def test_lent_requests_are_told_of_as_others_are(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    version = dataclasses.replace(obedient, sample=Sample("p.d.t", 1.0), logs_access=True)
    requests = [request(1), request(2), request(RAISE), request_of("nonsense"), request(3)]

    async def ask(client: Client, data: bytes) -> None:
        client.writer.write(data)
        await client.receive()

    async def scenario() -> None:
        async with running_front(version, tmp_path) as front:
            for data in requests:
                async with Client(front) as client:  # the first of its connection, so the engine answers
                    await ask(client, data)
            rows, accesses = front.rows[:], front.accesses[:]
            assert (len(rows), len(accesses)) == (4, 5)
            async with Client(front) as client:
                await client.predict(7)
                front.rows.clear()
                front.accesses.clear()
                began_ns = time.time_ns()
                for data in requests:
                    await ask(client, data)
                assert front.n_lent == 1
                assert (front.rows, front.accesses) == ([], [])
                await front.pool.groups()[0].nodes[0].stop()  # what it told outlives it
                ended_ns = time.time_ns()
                front.hearing.hear()
                front.hearing.hear()
            assert [row._replace(time_us=0) for row in front.rows] == rows
            assert [each._replace(time_ns=0, latency_s=0) for each in front.accesses] == [
                each._replace(latency_s=0) for each in accesses
            ]
            times = [each.time_ns for each in front.accesses]
            assert began_ns < times[0] < times[-1] < ended_ns
            assert {row.time_us for row in front.rows} <= {time // 1000 for time in times}
            assert all(0 < each.latency_s < (ended_ns - began_ns) / 1e9 for each in front.accesses)

    run(scenario())


@pytest.mark.parametrize("tells_all", [True, False])
def test_a_share_of_lent_requests_is_kept(tells_all: bool) -> None:
    with socket.socket() as unused:
        lent = Lent(unused, 0, b"", b"", 0.0, (1, 0.25, tells_all))
    lent.request = b"request"
    told = [Told.unpack(record) for _ in range(2000) if (record := lent.tell(200, b"answer"))]
    kept = [each for each in told if each.request]
    assert len(told) == (2000 if tells_all else len(kept))
    assert 380 < len(kept) < 620
    assert {(each.request, each.answer) for each in kept} == {(b"request", b"answer")}
    assert bool(lent.tell(500, b"answer")) == tells_all  # a failure has no row


def test_another_head_goes_back_to_the_engine(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, Client(front) as client:
            for number in range(20):
                assert await client.predict(number, header=f"x: {number // 3}") == [2 * number]
            client.writer.write(b"GET /elsewhere:predict HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.receive())["error"]["code"] == 404
            assert front.n_lent == 0
            assert await client.predict(5) == [10]

    run(scenario())


def test_a_connection_is_not_lent_while_its_next_request_is_answered(run: Run) -> None:
    class Recorder:
        n_asked = 0

        def lend(self, _connection: LendableProtocol, _head: Head, _telling: None) -> None:
            self.n_asked += 1

    async def scenario() -> None:
        lender, read = Recorder(), asyncio.Semaphore(0)
        turns = asyncio.Queue[asyncio.Event]()

        class Watched(LendableProtocol):
            def on_message_complete(self) -> None:
                super().on_message_complete()
                read.release()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await turns.put(may_answer := asyncio.Event())
            await may_answer.wait()
            scope["extensions"]["enginehouse.lend"](lender, None)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"[]"})

        async with serving(app, Watched) as port, asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for number in range(2):
                writer.write(request(number))
                await read.acquire()
            n_asked = []
            for _ in range(2):
                n_asked.append(lender.n_asked)
                (await turns.get()).set()
                assert await reader.readuntil(b"[]")
            assert [*n_asked, lender.n_asked] == [0, 0, 1]
            writer.close()

    run(scenario())


def test_any_cut_and_any_pipelining_gives_every_answer_in_order(
    run: Run, obedient: ServedVersion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front:

            async def caller(seed: int) -> None:
                rng = random.Random(seed)
                async with Client(front) as client:
                    for _ in range(20):
                        numbers = [rng.randrange(1000) for _ in range(rng.randrange(1, 6))]
                        stream = b"".join(request(number, seed) for number in numbers)
                        while stream:
                            size = rng.randrange(1, len(stream) + 1)
                            client.writer.write(stream[:size])
                            stream = stream[size:]
                            await asyncio.sleep(rng.random() / 200)
                        for number in numbers:
                            assert await client.receive() == [2 * number, 2 * seed]

            await asyncio.gather(*(caller(seed) for seed in range(12)))

    run(scenario())


def test_a_half_closed_connection_gets_its_answer(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, Client(front) as client:
            await client.predict(1)
            client.send(2)
            client.writer.write_eof()
            assert await client.receive() == [4]
            assert await client.reader.read() == b""
            assert front.n_lent == 0

    run(scenario())


def test_a_request_that_crashes_the_model_gets_an_error_and_its_neighbours_answers(
    run: Run, obedient: ServedVersion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(front)) for _ in range(8)]
            for client in clients:
                await client.predict(1)
            answers = await asyncio.gather(
                *(client.predict(EXIT if number == 3 else number) for number, client in enumerate(clients))
            )
            assert answers[3]["error"]["status"] == "INTERNAL"
            assert [answer for number, answer in enumerate(answers) if number != 3] == [
                [2 * number] for number in range(8) if number != 3
            ]

    run(scenario())


def test_a_hanging_model_costs_a_lent_request_its_deadline(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path, predict_timeout_s=1.0) as front, Client(front) as client:
            await client.predict(1)
            async with asyncio.timeout(10):
                assert (await client.predict(SLEEP))["error"]["status"] == "DEADLINE_EXCEEDED"

    run(scenario())


def test_connections_come_back_when_they_are_recalled(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front, Client(front) as client:
            await client.predict(1)
            lender = front.pool.lender(obedient.uid)
            assert lender is not None and len(lender) == 1
            async with asyncio.timeout(5):
                await lender.recall_all()
            assert len(lender) == 0
            assert await client.predict(3) == [6]

    run(scenario())


@pytest.mark.slow
def test_fifty_kills_under_load_of_64_connections_fail_no_request(obedient: ServedVersion, tmp_path: Path) -> None:
    """Slow: fifty starts of a model server."""

    async def scenario() -> None:
        async with running_front(obedient, tmp_path) as front:
            counter, stopping = itertools.count(), False

            async def caller() -> int:
                answered = 0
                async with Client(front) as client:
                    while not stopping:
                        number = next(counter)
                        assert await client.predict(number, number + 1) == [2 * number, 2 * number + 2]
                        answered += 1
                return answered

            callers = [asyncio.create_task(caller()) for _ in range(64)]
            async with Client(front) as client:
                for _ in range(50):
                    [pid] = await client.predict(PID)
                    await asyncio.sleep(random.random() / 10)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            stopping = True
            answered = await asyncio.gather(*callers)
            assert min(answered) > 0 and sum(answered) > 1000

    asyncio.run(scenario())


@given(st.data())
def test_only_whole_requests_with_the_same_head_are_taken(data: st.DataObject) -> None:
    first, later = request(1), request(*data.draw(st.lists(st.integers(0, 10**6), max_size=50)))
    head = Head.of(first)
    assert head is not None
    with socket.socket() as unused:
        lent = Lent(unused, 0, head.prefix, head.suffix, 0.0)
        assert lent.body(later + b"POST") == later.partition(b"\r\n\r\n")[2]
        assert lent.request_bytes == len(later) and lent.again
        cut = data.draw(st.integers(0, len(later) - 1))
        with pytest.raises(Incomplete):
            lent.body(later[:cut])
        position = data.draw(st.integers(0, later.index(b"\r\n\r\n") + 3))
        changed = bytearray(later)
        changed[position] ^= data.draw(st.integers(1, 255))
        with contextlib.suppress(Incomplete, NotOurs):
            # Only a digit of the length may differ; then the body is cut there.
            body = lent.body(bytes(changed))
            assert changed[position : position + 1].isdigit() and len(body) != len(later.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "head",
    [
        b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MAX_REQUEST_BYTES,
        b"POST /a HTTP/1.1\r\nContent-Length: 1\r\n",
    ],
)
def test_heads_that_are_not_lent(head: bytes) -> None:
    assert Head.of(head) is None


@pytest.mark.parametrize(
    ("sent", "read", "usable", "left"),
    [(0, 0, True, b"request"), (6, 0, True, b""), (6, 4, True, b""), (6, 7, True, b""), (3, 0, False, b"request")],
)
def test_a_death_at_any_moment_is_settled(sent: int, read: int, usable: bool, left: bytes) -> None:
    journal = Journal(Journal.make())
    ring = Ring(journal)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        connection, _ = listener.accept()
        with connection:
            peer.sendall(b"request")
            connection.recv(1, socket.MSG_PEEK)
            base = counts(connection)
            assert base[1] == 0
            journal.answering(5, 0, 6, 7)
            ring.prepare(b"record", 5)
            connection.sendall(b"answer"[:sent])
            connection.recv(read) if read else None
            assert journal.settle(5, connection, base) is usable
            assert list(ring.take()) == [b"record"] * (sent == 6)
            connection.setblocking(False)
            try:
                rest = connection.recv(100)
            except BlockingIOError:
                rest = b""
            assert rest == left
