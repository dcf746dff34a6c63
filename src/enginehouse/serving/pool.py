"""All model servers of an engine.

The registry deploys and retires versions here; the router asks for predictions; both on the engine's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from enginehouse.core.errors import NotFound, Unavailable
from enginehouse.modelserver.frames import PREDICT
from enginehouse.serving.lending import Lender
from enginehouse.serving.server import DEFAULT_LIMITS, Limits, VersionServer
from enginehouse.serving.types import Answer, DeployReport, ServedVersion

_DRAIN_S = 10.0


class ServerPool:
    """One model server process per version: started when first needed, again after a crash, stopped when idle.

    Belongs to the loop on which `start` is awaited, and to that loop's thread: the model servers die with it. Losing
    the pool loses nothing, since a version that is asked for is started again.

    Args:
        logs_dir: each version's output goes to `LOGS_DIR/<uid>.log`.
        limits: the same for every version.
    """

    def __init__(self, logs_dir: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._logs_dir = logs_dir
        self._limits = limits
        self._servers: dict[str, VersionServer] = {}
        self._retired: set[str] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin to stop idle servers and those that hang. Nothing else is started before it is asked for."""
        self._sweeper = asyncio.get_running_loop().create_task(self._look_after_servers())

    async def close(self) -> None:
        """End all model servers; requests in flight get Unavailable. Returns when the processes are gone."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        servers, self._servers = self._servers, {}
        await asyncio.gather(*(server.close() for server in servers.values()))

    async def deploy(self, version: ServedVersion) -> DeployReport:
        """Load `version` and call it once with a made-up instance. Does nothing when it is already running.

        Raises:
            ModelLoadError: the model cannot be served; nothing is left running.
        """
        server = self._server(version)
        try:
            return await server.deploy()
        except BaseException:
            if server.pid is None and not server.n_pending:
                self._servers.pop(version.uid, None)
                await server.close()
            raise

    async def predict(self, version: ServedVersion, body: bytes, wish: int = PREDICT) -> Answer:
        """The answer of the version's model to a request body, which is passed on unparsed.

        Args:
            wish: PREDICT or EXPLAIN of `modelserver.frames`.

        Raises:
            EngineError: the engine's own failures, see `VersionServer.predict`; NotFound after `retire`.
        """
        server = self._servers.get(version.uid)
        if server is None:
            server = self._server(version)
        return await server.predict(body, wish)

    async def retire(self, uid: str) -> None:
        """End the server of a deleted version for good, after the requests in flight (10 s at most)."""
        self._retired.add(uid)
        server = self._servers.pop(uid, None)
        if server is not None:
            await server.close(drain_s=_DRAIN_S)

    def lender(self, uid: str) -> Lender | None:
        """Who may lend client connections to the version's model server now."""
        server = self._servers.get(uid)
        return None if server is None else server.lender

    def recall(self, uid: str) -> None:
        """Ask for the connections that are lent to the version's model server."""
        if (lender := self.lender(uid)) is not None:
            lender.recall()

    def servers(self) -> list[VersionServer]:
        """Those of all versions that were used since the engine started."""
        return list(self._servers.values())

    def pids(self) -> dict[str, int]:
        """Process id by version uid, of the servers that are ready now."""
        return {uid: pid for uid, server in self._servers.items() if (pid := server.pid) is not None}

    def log_path(self, uid: str) -> Path:
        """Where the output of the model server of that version goes."""
        return self._logs_dir / f"{uid}.log"

    def _server(self, version: ServedVersion) -> VersionServer:
        if self._closed:
            raise Unavailable("The engine is shutting down.")
        if version.uid in self._retired:
            raise NotFound(f"{version.name} was deleted.")
        server = self._servers.get(version.uid)
        if server is None:
            server = self._servers[version.uid] = VersionServer(version, self.log_path(version.uid), self._limits)
        return server

    async def _look_after_servers(self) -> None:
        while True:
            await asyncio.sleep(max(min(self._limits.idle_s / 4, self._limits.predict_timeout_s / 4, 1.0), 0.05))
            for server in list(self._servers.values()):
                await server.kill_if_over_time()
                if server.pid is not None and server.idle_s >= self._limits.idle_s:
                    await server.stop()
