"""Models that hold the lock, grow, give wrong sizes; more load than they can bear; a server that comes and goes.

The longer forms of the last two are marked `long`: minutes of real load.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from enginehouse.serving.metrics import render
from enginehouse.serving.types import ServedVersion

from .conftest import GROW, HOLD_LOCK, ONE_MORE, PID, WORK, running_pool, until
from .test_lending import Client, request, running_front
from .test_pool import ask

Run = Callable[[Any], Any]
WORK_S = 0.02


def test_a_model_that_holds_the_interpreters_lock_delays_nobody_else(obedient: ServedVersion, tmp_path: Path) -> None:
    other = replace(obedient, uid="other")

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            await asyncio.gather(ask(pool, obedient, 1), ask(pool, other, 1))
            holding = asyncio.create_task(ask(pool, obedient, HOLD_LOCK))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            assert await ask(pool, other, 2) == [4]
            assert "enginehouse_model_server_up" in render(pool)
            assert len(pool.pids()) == 2 and time.monotonic() - began < 2
            assert not holding.done()
            assert await holding == [2 * HOLD_LOCK]

    asyncio.run(scenario())


def test_a_model_that_gives_a_row_too_many_spoils_no_other_answer(
    run: Run, obedient: ServedVersion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            await pool.deploy(obedient)
            answers = await asyncio.gather(*(ask(pool, obedient, n if n != 7 else ONE_MORE) for n in range(20)))
            assert [a for n, a in enumerate(answers) if n != 7] == [[2 * n] for n in range(20) if n != 7]

    run(scenario())


def test_a_model_that_grows_is_refused_memory_or_replaced(obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        bound = 400 << 20
        async with running_pool(tmp_path, memory_bytes=bound) as pool:

            def used() -> int:
                return sum(group.nodes[0].memory_bytes for group in pool.groups())

            pids = []
            for _ in range(2):
                pids += await ask(pool, obedient, PID)
                while used() <= bound:
                    await ask(pool, obedient, GROW)  # by 64 MiB
                await until(lambda: used() <= bound)
            assert await ask(pool, obedient, 3) == [6]
            assert len({*pids, *await ask(pool, obedient, PID)}) == 3
        async with running_pool(tmp_path, limit_bytes=400 << 20) as pool:
            [pid] = await ask(pool, obedient, PID)
            told = [await ask(pool, obedient, GROW) for _ in range(10)]
            assert told[0] == [2 * GROW] and "MemoryError" in told[-1]
            assert await ask(pool, obedient, PID, 3) == [pid, 6]

    asyncio.run(scenario())


@pytest.mark.parametrize("n_starts", [3, pytest.param(50, marks=pytest.mark.long)])
def test_a_trickle_meets_a_server_that_comes_and_goes_and_loses_nothing(
    obedient: ServedVersion, tmp_path: Path, n_starts: int
) -> None:
    """The long one goes on for five minutes at least."""
    least_s = 6 * n_starts if n_starts > 3 else 0

    async def scenario() -> None:
        async with running_front(obedient, tmp_path, idle_s=0.3) as front:
            over = asyncio.Event()

            async def trickle(seed: int) -> int:
                rng = random.Random(seed)
                n_answers = 0
                async with Client(front) as client:
                    while not over.is_set():
                        number = rng.randrange(1000)
                        assert await client.predict(number) == [2 * number]
                        n_answers += 1
                        await asyncio.sleep(rng.choice([0.02, 0.3, 0.35, 0.6, 1.5]))
                return n_answers

            async def watch() -> None:
                began = time.monotonic()
                n_seen, was_up = 0, False
                while n_seen < n_starts or time.monotonic() - began < least_s:
                    is_up = bool(front.pool.pids())
                    n_seen += is_up and not was_up
                    was_up = is_up
                    await asyncio.sleep(0.02)
                over.set()

            *answered, _ = await asyncio.gather(trickle(1), trickle(2), watch())
            assert sum(answered) >= n_starts

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.long)])
def test_ten_times_the_load_gives_bounded_waits_and_429_and_takes_no_memory(
    obedient: ServedVersion, tmp_path: Path, seconds: int
) -> None:
    max_wait_s = 0.5
    n_in_time = int(max_wait_s / WORK_S)

    async def scenario() -> None:
        async with running_front(obedient, tmp_path, max_wait_s=max_wait_s, max_batch_rows=1) as front:
            served: list[float] = []
            refused: list[float] = []
            over = asyncio.Event()
            n_warm = 0

            async def caller() -> None:
                nonlocal n_warm
                async with Client(front) as client:
                    await client.predict(1)
                    n_warm += 1
                    while not over.is_set():
                        began = time.monotonic()
                        client.writer.write(request(WORK))
                        head = await client.reader.readuntil(b"\r\n\r\n")
                        size = int(head.lower().partition(b"content-length:")[2].split()[0])
                        body = json.loads(await client.reader.readexactly(size))
                        took_s = time.monotonic() - began
                        if head.startswith(b"HTTP/1.1 200"):
                            assert body == {"predictions": [2 * WORK]}
                            served.append(took_s)
                        else:
                            assert head.startswith(b"HTTP/1.1 429") and b"retry-after" in head.lower()
                            assert body["error"]["status"] == "RESOURCE_EXHAUSTED"
                            refused.append(took_s)
                            await asyncio.sleep(1)  # as Retry-After says

            async with Client(front) as first:
                assert await first.predict(1) == [2]
            [pid] = front.pool.pids().values()
            callers = [asyncio.create_task(caller()) for _ in range(int(10 / WORK_S))]
            await until(lambda: n_warm == len(callers) and len(served) > n_in_time, 90)
            await asyncio.sleep(2)
            engine, server = psutil.Process(), psutil.Process(pid)
            before = [process.memory_info().rss for process in (engine, server)]
            del served[:], refused[:]
            began = time.monotonic()
            await asyncio.sleep(seconds)
            over.set()
            per_request_s = (time.monotonic() - began) / len(served)
            grown = [process.memory_info().rss - was for process, was in zip((engine, server), before, strict=True)]
            await asyncio.gather(*callers)
            assert list(front.pool.pids().values()) == [pid]
            assert len(refused) > len(served) > n_in_time
            # The wait is bounded by the queue: two batches of it and what is under way, at the pace of the host;
            # if nobody were refused it would be four times as long.
            assert sorted(served)[int(0.99 * len(served))] < 5 * n_in_time * per_request_s
            assert max(grown) < 40 << 20

    asyncio.run(scenario())
