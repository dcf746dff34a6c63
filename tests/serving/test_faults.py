"""Model servers that are killed, that crash, that hang: what is contained, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from enginehouse.core.errors import DeadlineExceeded, Internal
from enginehouse.serving.types import ServedVersion

from .conftest import EXIT, PID, SEGFAULT, SLEEP, running_pool
from .test_pool import ask

Run = Callable[[Any], Any]


def test_ten_kills_under_load_cost_no_answer(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    kills = 10

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            counter = itertools.count()
            stopping = False

            async def caller() -> int:
                answered = 0
                while not stopping:
                    number = next(counter)
                    assert await ask(pool, obedient, number, number + 1) == [2 * number, 2 * number + 2]
                    answered += 1
                return answered

            callers = [asyncio.create_task(caller()) for _ in range(16)]
            killed = set()
            while len(killed) < kills:
                await asyncio.sleep(random.random() / 5)
                for pid in pool.pids().values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
            stopping = True
            answered = await asyncio.gather(*callers)
            assert sum(answered) > 100 and min(answered) > 0

    run(scenario())


@pytest.mark.parametrize(("order", "words"), [(SEGFAULT, "was killed by SIGSEGV"), (EXIT, "exited with code 3")])
def test_a_request_that_crashes_the_model_takes_only_itself_down(
    run: Run, obedient: ServedVersion, tmp_path: Path, order: int, words: str
) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            await pool.deploy(obedient)
            results = await asyncio.gather(
                *(ask(pool, obedient, order if number == 10 else number) for number in range(20)),
                return_exceptions=True,
            )
            crashed = results.pop(10)
            assert isinstance(crashed, Internal) and words in crashed.message
            assert results == [[2 * number] for number in range(20) if number != 10]

    run(scenario())


def test_a_call_that_hangs_is_ended_at_the_timeout(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path, predict_timeout_s=4) as pool:
            await pool.deploy(obedient)
            [pid] = await ask(pool, obedient, PID)
            started = time.monotonic()
            hanging = asyncio.create_task(ask(pool, obedient, SLEEP))
            await asyncio.sleep(0.5)
            behind = asyncio.create_task(ask(pool, obedient, 1))
            with pytest.raises(DeadlineExceeded, match="within 4 seconds"):
                await hanging
            assert 3.9 < time.monotonic() - started < 5
            with contextlib.suppress(DeadlineExceeded):  # it waited nearly as long, and a start takes a second
                assert await behind == [2]
            assert not psutil.pid_exists(pid)
            await pool.deploy(obedient)
            assert await ask(pool, obedient, 2) == [4]

    run(scenario())


def test_a_stopped_process_is_replaced(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path, predict_timeout_s=3) as pool:
            await pool.deploy(obedient)
            [pid] = await ask(pool, obedient, PID)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(DeadlineExceeded):
                await ask(pool, obedient, 1)
            await pool.deploy(obedient)
            assert await ask(pool, obedient, 2) == [4]
            assert not psutil.pid_exists(pid)

    run(scenario())


ENGINE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.types import ServedVersion
from enginehouse.core.names import VersionName

async def main():
    pool = ServerPool(Path({logs!r}))
    version = ServedVersion(
        VersionName("p", "m", "v"), "u", Path({files!r}), "SCIKIT_LEARN", Path(sys.executable), (Path({code!r}),)
    )
    await pool.deploy(version)
    print(pool.pids()["u"], flush=True)
    await pool.predict(version, {body!r})

asyncio.run(main())
"""


@pytest.mark.parametrize("body", [b'{"instances": [[%d]]}' % SLEEP, b'{"instances": [[1]]}'])
def test_a_model_server_dies_with_its_engine(obedient: ServedVersion, tmp_path: Path, body: bytes) -> None:
    source = ENGINE.format(
        tests=str(Path(__file__).parent),
        logs=str(tmp_path),
        files=str(obedient.directory),
        code=str(obedient.site_dirs[0]),
        body=body,
    )
    engine = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    with engine.stdout:
        server = psutil.Process(int(engine.stdout.readline()))
        engine.kill()
        engine.wait()
    server_gone, _ = psutil.wait_procs([server], timeout=5)
    assert server_gone
