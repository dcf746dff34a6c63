"""One life of a custom container that serves a version: run, wait until it is healthy, pass requests on, end it.

`server.VersionServer` owns it, as it does a `process.ModelProcess`. Bodies go to the container's predict route as
they came, and its answers go back as they are. It is run by a keeper (`replica.keeper`), which ends it when
this engine ends, however that comes about.

**Health.** The container is ready when its health route answers 200. It is asked again every `health_every_s`; while
it answers something else, requests wait. When its port takes no connection four times in a row, it is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from enginehouse.core.errors import Unavailable
from enginehouse.core.expansion import expand
from enginehouse.core.ids import new_id
from enginehouse.modelserver.frames import PREDICT
from enginehouse.modelserver.journal import N_COUNTERS, Journal
from enginehouse.serving.child import Child, describe_exit, open_log
from enginehouse.serving.limits import Limits
from enginehouse.serving.process import ServerGone
from enginehouse.serving.types import Answer, DeployReport, ModelLoadError, ServedContainer, ServedVersion

_log = logging.getLogger(__name__)

MODEL_DIR = "/mnt/model"
"""Where the version's files are in the container."""
_N_CALLS = 32
"""Requests that a container has at a time; others wait."""
_POLL_S = 0.1
_HEALTH_TIMEOUT_S = 10.0
_MOST_DEAD = 4
_LINGER_S = 1.0
"""The end of a connection may be seen so long before that of the container."""
_SIGNATURES = {"predict": {"inputs": {"instances": {"shape": [None]}}, "outputs": {"predictions": {"shape": [None]}}}}


class ContainerProcess:
    """A running container. Belongs to the loop that `start` ran on.

    Attributes:
        heard_at: loop time of its last answer.
    """

    lender = None

    def __init__(self, child: Child, keeper: int, name: str, container: ServedContainer, port: int, limits: Limits):
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._keeper = keeper
        self._name = name
        self._container = container
        self._limits = limits
        self._port = port
        self._started_at = self._loop.time()
        self._connections = threading.local()
        self._calls = ThreadPoolExecutor(_N_CALLS, thread_name_prefix=name)
        self._healthy = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._stopping = False
        self._pid = 0
        fd = Journal.make()
        self._journal = Journal(fd)
        os.close(fd)
        self.heard_at = self._loop.time()
        child.exited.add_done_callback(lambda _: self._release())

    @classmethod
    async def start(cls, version: ServedVersion, log_path: Path, limits: Limits) -> ContainerProcess:
        """Run the container of `version`, its output appended to `log_path`. It is not ready yet.

        Raises:
            ModelLoadError: there is nothing to run it with.
        """
        container = version.container
        assert container is not None
        try:
            engine = await asyncio.to_thread(container.engine)
        except Exception as error:
            raise ModelLoadError(f"Failed to load model: {error} (Error code: 0)") from error
        port = _free_port()
        name = f"enginehouse-{version.name.version_id.lower()}-{new_id()}"
        variables = log_path.with_name(f"{name}.env")
        command = _command(engine, name, version, port, variables)
        keeper = [sys.executable, "-I", "-m", "enginehouse.replica.keeper"]
        keeper += [engine, name, f"{limits.grace_s:g}", str(variables)]
        ends, holds = os.pipe()
        try:
            with open_log(log_path) as log:
                log_start_bytes = log.tell()
                _write_variables(variables, container.environment)
                process = subprocess.Popen(  # noqa: ASYNC220  (for a millisecond)
                    [*keeper, *command],
                    stdin=ends,
                    stdout=log,
                    stderr=log,
                    cwd=log_path.parent,
                    start_new_session=True,
                )
        except OSError as error:
            os.close(holds)
            variables.unlink(missing_ok=True)
            raise ModelLoadError(f"Failed to load model: {error} (Error code: 0)") from error
        finally:
            os.close(ends)
        return cls(Child(process, log_path, log_start_bytes), holds, name, container, port, limits)

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._stopping or self._child.returncode is not None

    @property
    def pid(self) -> int:
        """The container's first process, or its keeper as long as that is not known."""
        return self._pid or self._child.pid

    @property
    def counters(self) -> list[int]:
        """Requests and their times, by word of `modelserver.journal`."""
        return list(self._journal.words[:N_COUNTERS])

    async def ready(self) -> DeployReport:
        """Wait until the container is healthy.

        Raises:
            ModelLoadError: it ended before.
        """
        while await self._health() != "healthy":
            await asyncio.wait({self._child.exited}, timeout=_POLL_S)
            if self._child.returncode is not None:
                raise ModelLoadError(
                    "Error: model server never became ready. Please validate that your model file or container "
                    f"configuration are valid. (The container {describe_exit(await self.wait_exit())}. "
                    f"{self._child.last_words()})"
                )
        self._pid = await asyncio.to_thread(_pid_of, self._container.engine, self._name)
        self._healthy.set()
        self._watch = self._loop.create_task(self._look_after())
        load_s = self._loop.time() - self._started_at
        return DeployReport(load_s, "not made: its health route answers", signatures=_SIGNATURES)

    async def send(self, body: bytes, wish: int = PREDICT) -> Answer:
        """The container's answer to a request body; waits while it is not healthy.

        Raises:
            ServerGone: it ended before it answered.
            Unavailable: it lives, but gave no answer.
        """
        assert wish == PREDICT  # versions with containers have no explanations
        queued_s = time.perf_counter()
        await self._healthy.wait()
        if self.closed:
            raise ServerGone(self._returncode())
        self._journal.observe("queue", time.perf_counter() - queued_s, 1)
        self._journal.observe("decode", 0.0, 1)
        try:
            answer = await self._loop.run_in_executor(self._calls, self._post, body)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            await asyncio.wait({self._child.exited}, timeout=_LINGER_S)
            if self.closed:
                raise ServerGone(self._returncode()) from None
            words = str(error) or type(error).__name__
            raise Unavailable(f"The container gave no answer on {self._container.predict_route}: {words}.") from None
        self.heard_at = self._loop.time()
        return answer

    async def kill(self, *, timeout_s: float = math.inf) -> None:
        """End the container: SIGTERM, and SIGKILL after the grace. Harmless when it has ended."""
        self._stopping = True
        self._close_pipe()
        await self._child.wait_exit()

    async def wait_exit(self) -> int:
        """Wait for the end; the return code as in subprocess."""
        return _signal_or_code(await self._child.wait_exit())

    def _returncode(self) -> int | None:
        code = self._child.returncode
        return None if code is None else _signal_or_code(code)

    def _release(self) -> None:
        self._close_pipe()
        self._healthy.set()  # those who wait shall see the end
        self._calls.shutdown(wait=False)
        if self._watch is not None:
            self._watch.cancel()

    def _close_pipe(self) -> None:
        if self._keeper >= 0:
            os.close(self._keeper)
            self._keeper = -1

    async def _look_after(self) -> None:
        n_dead = 0
        while True:
            await asyncio.sleep(self._limits.health_every_s)
            health = await self._health()
            if health == "healthy":
                self._healthy.set()
                self.heard_at = self._loop.time()
            else:
                self._healthy.clear()
            n_dead = n_dead + 1 if health == "dead" else 0
            if n_dead == _MOST_DEAD:
                _log.warning("the container %s takes no connection on its port; it is replaced", self._name)
                self._stopping = True
                self._close_pipe()
                return

    async def _health(self) -> str:
        """One of "healthy", "unhealthy", and "dead" where nothing listens."""
        try:
            status = await asyncio.to_thread(self._get_health)
        except ConnectionError:
            return "dead"
        except (OSError, http.client.HTTPException):
            return "unhealthy"
        return "healthy" if status == 200 else "unhealthy"

    def _get_health(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_HEALTH_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", self._container.health_route)
            response = connection.getresponse()
            response.read()  # closed with something unread, the connection would be reset, which servers complain of
            return response.status

    def _post(self, body: bytes) -> Answer:
        """In a thread of `_calls`, each of which keeps its connection."""
        connection = getattr(self._connections, "kept", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._limits.predict_timeout_s)
            self._connections.kept = connection
        elif connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()  # the container has closed it meanwhile
        started_s = time.perf_counter()
        try:
            connection.request("POST", self._container.predict_route, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except BaseException:
            connection.close()
            raise
        self._loop.call_soon_threadsafe(self._journal.observe, "model", time.perf_counter() - started_s, 1)
        return answer


def _write_variables(path: Path, variables: Mapping[str, str]) -> None:
    """A file for the container's engine: neither its own variables nor the list of processes are to show them.

    The keeper removes it at the end.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in variables.items())


def _command(engine: str, name: str, version: ServedVersion, port: int, variables: Path) -> list[str]:
    """How the container is run: on a network of its own, with its port on this machine's loopback alone."""
    container = version.container
    assert container is not None
    command = [engine, "run", "--name", name, "--log-driver", "none"]
    command += ["--publish", f"127.0.0.1:{port}:{container.port}", "--env-file", str(variables)]
    if container.has_files:
        command += ["--volume", f"{version.directory.absolute()}:{MODEL_DIR}:ro"]
    own = [expand(each, container.environment) for each in container.command]
    if own:
        command += ["--entrypoint", own[0]]
    return [*command, container.image, *own[1:], *(expand(each, container.environment) for each in container.args)]


def _pid_of(find: Callable[[], str], name: str) -> int:
    asked = subprocess.run([find(), "inspect", "--format", "{{json .State.Pid}}", name], capture_output=True)
    try:
        return int(json.loads(asked.stdout))
    except ValueError:
        return 0


def _signal_or_code(code: int) -> int:
    """What a container engine exits with, as in subprocess: 137 is SIGKILL."""
    return 128 - code if code > 128 else code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(given: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container: the service's, and its owner's, which may refer to those before them."""
    known = dict(told)
    for name, value in given.items():
        known[name] = expand(value, known)
    return known
