"""The pool with real model server processes: start, share, stop, refuse."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.core.errors import NotFound, ResourceExhausted, Unavailable
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.types import ModelLoadError, ServedVersion

from .conftest import ENGINE, LEAKS, PID, RAISE, SHORT_SLEEP, make_version, running_pool, until

ORDERED = "Prediction failed: Exception during sklearn prediction: as ordered"
Run = Callable[[Any], Any]


async def ask(pool: ServerPool, version: ServedVersion, *numbers: int) -> Any:
    """The predictions of one request, or its error text."""
    answer = await pool.predict(version, json.dumps({"instances": [[number] for number in numbers]}).encode())
    assert answer.status == 200
    value = json.loads(answer.body)
    return value.get("predictions", value.get("error"))


def test_deploy_loads_once_and_predict_answers(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            report = await pool.deploy(obedient)
            assert report.self_test == "passed"
            assert await pool.deploy(obedient) == report
            [pid] = pool.pids().values()
            assert await ask(pool, obedient, 1, 2, 3) == [2, 4, 6]
            assert await ask(pool, obedient, PID) == [pid]
            assert await ask(pool, obedient, 1, RAISE) == (
                "Prediction failed: Exception during sklearn prediction: as ordered (Instance 1.) (Error code: 2)"
            )
        assert not psutil.pid_exists(pid)

    run(scenario())


def test_a_model_server_starts_when_it_is_first_asked(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            assert pool.pids() == {}
            answers = await asyncio.gather(*(ask(pool, obedient, PID) for _ in range(20)))
            assert set(map(tuple, answers)) == {(pool.pids()[obedient.uid],)}

    run(scenario())


def test_a_model_knows_nothing_of_the_engine(
    run: Run, obedient: ServedVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINEHOUSE_TOKEN", "secret")

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            assert await ask(pool, obedient, LEAKS, ENGINE) == [0, 0]

    run(scenario())


def test_every_answer_goes_to_its_caller(obedient: ServedVersion, tmp_path: Path) -> None:
    """Many callers at once, some of whose requests fail, each sending its next one when the last is answered."""
    callers = st.lists(
        st.lists(st.lists(st.sampled_from([RAISE, *range(100)]), max_size=4), min_size=1, max_size=6),
        min_size=1,
        max_size=24,
    )
    with asyncio.Runner() as runner:
        pool = ServerPool(tmp_path)

        async def caller(requests: list[list[int]], number: int) -> None:
            for position, values in enumerate(requests):
                values = [value if value < 0 else value + 100 * position + 1000 * number for value in values]
                answer = await ask(pool, obedient, *values)
                if RAISE in values:
                    blamed = f" (Instance {values.index(RAISE)}.)" if len(values) > 1 else ""
                    assert answer == f"{ORDERED}{blamed} (Error code: 2)"
                else:
                    assert answer == [2 * value for value in values]
                if number % 3 == 0:
                    await asyncio.sleep(0.001 * (position % 2))

        @settings(max_examples=60, deadline=None)
        @given(callers)
        def check(requests_by_caller: list[list[list[int]]]) -> None:
            async def all_callers() -> None:
                await asyncio.gather(*(caller(requests, n) for n, requests in enumerate(requests_by_caller)))

            runner.run(all_callers())

        try:
            check()
        finally:
            runner.run(pool.close())


def test_large_bodies(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    numbers = list(range(400_000))

    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            large, small = await asyncio.gather(ask(pool, obedient, *numbers), ask(pool, obedient, 7))
            assert large == [2 * number for number in numbers]
            assert small == [14]

    run(scenario())


def test_too_many_requests_in_flight_are_refused(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path, max_pending=5) as pool:
            results = await asyncio.gather(*(ask(pool, obedient, n) for n in range(8)), return_exceptions=True)
            assert [isinstance(result, ResourceExhausted) for result in results] == [False] * 5 + [True] * 3
            assert await ask(pool, obedient, 1) == [2]
        async with running_pool(tmp_path, max_pending_bytes=30) as pool:
            results = await asyncio.gather(*(ask(pool, obedient, n) for n in range(3)), return_exceptions=True)
            assert [isinstance(result, ResourceExhausted) for result in results] == [False, True, True]

    run(scenario())


def test_an_idle_server_is_stopped_and_started_again(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path, idle_s=0.2) as pool:
            [first] = await ask(pool, obedient, PID)
            await until(lambda: not pool.pids() and not psutil.pid_exists(first))
            [second] = await ask(pool, obedient, PID)
            assert second != first

    run(scenario())


def test_a_busy_server_is_not_idle(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path, idle_s=0.1) as pool:
            assert await ask(pool, obedient, SHORT_SLEEP) == [2 * SHORT_SLEEP]

    run(scenario())


def test_a_retired_version_answers_what_is_in_flight_and_then_no_more(
    run: Run, obedient: ServedVersion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            [pid] = await ask(pool, obedient, PID)
            in_flight = asyncio.create_task(ask(pool, obedient, SHORT_SLEEP))
            await asyncio.sleep(0.1)
            await pool.retire(obedient.uid)
            assert await in_flight == [2 * SHORT_SLEEP]
            assert not psutil.pid_exists(pid)
            with pytest.raises(NotFound):
                await ask(pool, obedient, 1)
            await pool.retire(obedient.uid)

    run(scenario())


def test_close_ends_everything_at_once(run: Run, obedient: ServedVersion, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            [pid] = await ask(pool, obedient, PID)
            in_flight = asyncio.create_task(ask(pool, obedient, SHORT_SLEEP))
            starting = asyncio.create_task(ask(pool, replace(obedient, uid="other"), 1))
            await asyncio.sleep(0.1)
            await pool.close()
            assert not psutil.pid_exists(pid)
            for task in (in_flight, starting):
                with pytest.raises(Unavailable):
                    await task
            with pytest.raises(Unavailable):
                await ask(pool, obedient, 1)
        assert not [child for child in psutil.Process().children() if "modelserver" in " ".join(child.cmdline())]

    run(scenario())


def test_a_model_that_never_loads(run: Run, tmp_path: Path) -> None:
    version = make_version(tmp_path, "SlowToLoad")

    async def scenario() -> None:
        async with running_pool(tmp_path, load_timeout_s=1.5) as pool:
            with pytest.raises(ModelLoadError, match="model server never became ready") as caught:
                await pool.deploy(version)
            assert caught.value.creation_message.startswith(
                'Create Version failed. Bad model detected with error:  "Error: model server never became ready.'
            )
            assert pool.pids() == {}
        assert not [child for child in psutil.Process().children() if "modelserver" in " ".join(child.cmdline())]

    run(scenario())


@pytest.mark.parametrize("python", ["no/such/python", __file__])
def test_a_runtime_that_is_not_there(run: Run, obedient: ServedVersion, tmp_path: Path, python: str) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            with pytest.raises(ModelLoadError, match="the runtime could not be started"):
                await pool.deploy(replace(obedient, python=tmp_path / python))

    run(scenario())


def test_a_model_that_broke_after_its_deployment(run: Run, tmp_path: Path) -> None:
    version = make_version(tmp_path, "Obedient")

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs") as pool:
            model = version.directory / "model.pkl"
            good = model.read_bytes()
            model.write_bytes(b"nonsense")
            with pytest.raises(Unavailable, match="could not be started: Failed to load model: "):
                await ask(pool, version, 1)
            started = time.monotonic()
            with pytest.raises(Unavailable, match="could not be started: Failed to load model: "):
                await ask(pool, version, 1)
            assert time.monotonic() - started < 0.5, "a server that fails to start is not started for every request"
            model.write_bytes(good)
            await pool.deploy(version)
            assert await ask(pool, version, 1) == [2]

    run(scenario())


def test_the_log_holds_what_the_model_says_and_does_not_grow_for_ever(
    run: Run, obedient: ServedVersion, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running_pool(tmp_path) as pool:
            log = pool.log_path(obedient.uid)
            log.write_bytes(b"x" * (9 * 1024 * 1024))
            [pid] = await ask(pool, obedient, PID)
            os.kill(pid, 11)
            assert await ask(pool, obedient, 1) == [2]
            assert "Fatal Python error: Segmentation fault" in log.read_text()
            assert log.stat().st_size < 1024 * 1024
            assert log.with_name(log.name + ".1").stat().st_size == 9 * 1024 * 1024

    run(scenario())
