"""A model that obeys orders, served by a real model server process of this interpreter's scikit-learn adapter."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
import uvloop
from click.testing import CliRunner

from enginehouse.cli.invocation import Invocation
from enginehouse.cli.tree import root
from enginehouse.core.errors import AlreadyExists
from enginehouse.core.names import ObjectUri, VersionName
from enginehouse.sdk.client import Client
from enginehouse.serving.limits import Limits
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.types import ServedVersion

OBEDIENT = '''
import ctypes, os, random, signal, sys, time

RAISE, SLEEP, SEGFAULT, EXIT, LEAKS, ENGINE, PID, SHORT_SLEEP = range(-1, -9, -1)
HOLD_LOCK, GROW, ONE_MORE, WORK = range(-9, -13, -1)
grown = []


class Obedient:
    """Doubles what it gets; negative numbers are orders."""

    n_features_in_ = 1

    def predict(self, table):
        if random.random() < 0.2:
            time.sleep(random.random() / 200)
        answers = [self.obey(int(row[0])) for row in table]
        return answers + [0] * (ONE_MORE in table)

    def obey(self, number):
        if number == RAISE:
            raise ValueError("as ordered")
        if number == SLEEP:
            time.sleep(60)
        if number == SEGFAULT:
            ctypes.string_at(0)
        if number == EXIT:
            os._exit(3)
        if number == LEAKS:
            return sum(name.startswith("ENGINEHOUSE_") for name in os.environ)
        if number == ENGINE:
            try:
                import enginehouse.core
            except ImportError:
                return 0
            return 1
        if number == PID:
            return os.getpid()
        if number == SHORT_SLEEP:
            time.sleep(0.5)
        if number == HOLD_LOCK:
            ctypes.PyDLL(None).sleep(3)  # keeps the interpreter's lock
        if number == GROW:
            grown.append(bytearray(os.urandom(1)) * (64 << 20))
        if number == WORK:
            time.sleep(0.02)
        return 2 * number


class SlowToLoad:
    def __init__(self):
        time.sleep(60)
'''
RAISE, SLEEP, SEGFAULT, EXIT, LEAKS, ENGINE, PID, SHORT_SLEEP = range(-1, -9, -1)
HOLD_LOCK, GROW, ONE_MORE, WORK = range(-9, -13, -1)


@pytest.fixture(scope="session")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    """The version whose model obeys orders."""
    return make_version(tmp_path_factory.mktemp("obedient"), "Obedient")


def make_version(directory: Path, class_name: str) -> ServedVersion:
    """A version whose model is an instance of a class of `OBEDIENT`."""
    code, files = directory / "code", directory / "files"
    code.mkdir()
    files.mkdir()
    (code / "obedient.py").write_text(OBEDIENT)
    (files / "model.pkl").write_bytes(f"cobedient\n{class_name}\n)R.".encode())
    name = VersionName("p", "m", "v")
    return ServedVersion(name, directory.name, files, "SCIKIT_LEARN", Path(sys.executable), (code,))


@contextlib.asynccontextmanager
async def running_pool(
    logs_dir: Path, *, memory_bytes: int = 0, limit_bytes: int = 0, **limits: Any
) -> AsyncIterator[ServerPool]:
    """A pool for the length of the block."""
    pool = ServerPool(logs_dir, Limits(memory_bytes=limit_bytes, **limits), memory_bytes=memory_bytes)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Run a coroutine, on the loop of production and on Python's own."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return run


def deploy(client: Client, model_id: str, version_id: str, estimator: Any) -> None:
    """Make a version of a fitted scikit-learn estimator on an engine, and its model and bucket where needed."""
    with contextlib.suppress(AlreadyExists):
        client.storage.create_bucket("models")
    with contextlib.suppress(AlreadyExists):
        client.models.create({"name": model_id})
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    client.storage.upload(file, ObjectUri("models", f"{model_id}/{version_id}/model.joblib"))
    uri = f"gs://models/{model_id}/{version_id}"
    body = {"name": version_id, "deploymentUri": uri, "runtimeVersion": "scikit-learn-1.9"}
    client.operations.wait(client.versions(model_id).create(body))


def run_mle(data_dir: Path, *arguments: str) -> str:
    """What a command that must work prints, asked of the engine in `data_dir`."""
    flags = ["--data-dir", str(data_dir)]
    done = CliRunner().invoke(root, [*arguments, *flags], obj=Invocation(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
