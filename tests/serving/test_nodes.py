"""Several nodes of one version, and many versions in little memory, with real model servers."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from enginehouse.serving.scaling import Scaling
from enginehouse.serving.types import ServedVersion

from .conftest import PID, SHORT_SLEEP, make_version, running_pool, until
from .test_pool import ask

Run = Callable[[Any], Any]


def test_two_nodes_share_the_requests_and_both_are_kept(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    version = replace(obedient, scaling=Scaling(2, 2))

    async def scenario() -> None:
        async with running_pool(tmp_path, idle_s=1) as pool:
            await pool.rescale(version)
            [group] = pool.groups()
            await until(lambda: len(group.pids) == 2, 60)
            slow = [asyncio.create_task(ask(pool, version, SHORT_SLEEP, PID)) for _ in range(4)]
            pids = {answer[1] for answer in await asyncio.gather(*slow)}
            assert pids == set(group.pids)
            os.kill(group.pids[0], signal.SIGKILL)
            await until(lambda: len(group.pids) == 1)
            assert await ask(pool, version, 1) == [2]
            await until(lambda: len(group.pids) == 2, 60)
            await asyncio.sleep(1.5)  # longer than idle_s
            assert len(group.pids) == 2
            await pool.rescale(replace(version, scaling=Scaling(0, 1)))
            await until(lambda: not group.pids, 30)
            assert await ask(pool, version, 2) == [4]

    run(scenario())


def test_nodes_are_replaced_without_losing_a_request(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    version = replace(obedient, scaling=Scaling(2, 2))

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            await pool.rescale(version)
            [group] = pool.groups()
            await until(lambda: len(group.pids) == 2, 60)
            before = set(group.pids)
            counter, over = itertools.count(), False

            async def caller() -> int:
                answered = 0
                while not over:
                    number = next(counter)
                    assert await ask(pool, version, number) == [2 * number]
                    answered += 1
                return answered

            callers = [asyncio.create_task(caller()) for _ in range(8)]
            await asyncio.sleep(0.2)
            await pool.renew(version)
            over = True
            assert min(await asyncio.gather(*callers)) > 0
            assert len(group.pids) == 2 and not before & set(group.pids)
            assert not any(psutil.pid_exists(pid) for pid in before)

    run(scenario())


def test_a_new_node_that_does_not_load_leaves_the_old_one(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            [pid] = await ask(pool, obedient, PID)
            try:
                await pool.renew(replace(obedient, directory=tmp_path))
            except Exception as error:
                assert "Could not find any of model.joblib" in str(error)
            else:
                raise AssertionError("it loaded")
            assert await ask(pool, obedient, PID) == [pid]

    run(scenario())


def test_many_versions_live_in_the_memory_of_a_few(obedient: ServedVersion, tmp_path: Path) -> None:
    versions = [replace(obedient, uid=f"v{number}") for number in range(6)]

    async def scenario() -> None:
        async with running_pool(tmp_path / "measure") as pool:
            await ask(pool, versions[0], 1)
            one = pool.groups()[0].nodes[0].memory_bytes
            assert one > 5 * 1024**2
        async with running_pool(tmp_path, memory_bytes=int(one * 2.5)) as pool:
            pool._known_bytes = {version.uid: one for version in versions}
            for number, version in enumerate(versions):
                assert await ask(pool, version, number) == [2 * number]
                assert len(pool.pids()) <= 2
            assert list(pool.pids()) == ["v4", "v5"]  # those used last
            answers = await asyncio.gather(*(ask(pool, version, 7) for version in versions))
            assert answers == [[14]] * len(versions)
            assert len(pool.pids()) <= 2

    asyncio.run(scenario())


def test_a_version_that_keeps_a_node_is_not_unloaded(tmp_path: Path, obedient: ServedVersion) -> None:
    (tmp_path / "a").mkdir()
    kept = replace(make_version(tmp_path / "a", "Obedient"), uid="kept", scaling=Scaling(1, 1))

    async def scenario() -> None:
        async with running_pool(tmp_path, memory_bytes=100 << 20) as pool:
            await ask(pool, kept, 1)
            waiting = asyncio.create_task(ask(pool, obedient, 2))
            await asyncio.sleep(1)
            assert pool.pids().keys() == {"kept"} and not waiting.done()
            await pool.rescale(replace(kept, scaling=Scaling()))
            assert await waiting == [4]

    asyncio.run(scenario())
