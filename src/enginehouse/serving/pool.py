"""All model servers of an engine.

The registry deploys and retires versions here; the router asks for predictions; both on the engine's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from enginehouse.core.errors import NotFound, Unavailable
from enginehouse.core.names import VersionName
from enginehouse.core.units import format_size
from enginehouse.modelserver.frames import PREDICT
from enginehouse.serving.lending import Lender
from enginehouse.serving.limits import DEFAULT_LIMITS, Limits
from enginehouse.serving.nodes import NodeGroup
from enginehouse.serving.server import VersionServer
from enginehouse.serving.types import Answer, DeployReport, ServedVersion

_log = logging.getLogger(__name__)

_DRAIN_S = 10.0
_USUAL_BYTES = 150 * 1024 * 1024
"""Taken for the memory of a model that was not loaded yet."""
_LEAST_IDLE_S = 0.2
"""A version that was asked so recently is in use."""
_ROOM_EVERY_S = 0.05


class ServerPool:
    """The model servers of all versions: started when first needed, again after a crash, stopped when idle.

    Belongs to the loop on which `start` is awaited, and to that loop's thread: the model servers die with it. Losing
    the pool loses nothing, since a version that is asked for is started again.

    **Memory.** Before a process starts, those of the versions that were not used for the longest time are stopped,
    until there is room for it; a version that keeps a minimum of nodes, or has a request in flight, is left alone.
    A request whose version finds no room waits, as for a start.

    Args:
        logs_dir: each version's output goes to `LOGS_DIR/<uid>.log`.
        limits: the same for every version.
        memory_bytes: what all processes may use together; 0 for no bound. A process that has more than that alone is
            replaced.
    """

    def __init__(self, logs_dir: Path, limits: Limits = DEFAULT_LIMITS, *, memory_bytes: int = 0) -> None:
        self._logs_dir = logs_dir
        self._limits = limits
        self._memory_bytes = memory_bytes
        self._groups: dict[str, NodeGroup] = {}
        self._retired: set[str] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False
        self._room = asyncio.Lock()
        self._starting: dict[VersionServer, int] = {}
        self._known_bytes: dict[str, int] = {}

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
        groups, self._groups = self._groups, {}
        await asyncio.gather(*(group.close() for group in groups.values()))

    async def deploy(self, version: ServedVersion) -> DeployReport:
        """Load `version` and call it once with a made-up instance. Does nothing when it is already running.

        Raises:
            ModelLoadError: the model cannot be served; nothing is left running.
        """
        group = self._group(version)
        try:
            return await group.deploy()
        except BaseException:
            if not group.pids and not group.n_pending:
                self._groups.pop(version.uid, None)
                await group.close()
            raise

    async def rescale(self, version: ServedVersion) -> None:
        """Take over the version's scaling; the nodes that it is to have at least are started, and kept."""
        self._group(version)

    def is_ready(self, uid: str) -> bool:
        """Whether the version of that uid can answer at once."""
        group = self._groups.get(uid)
        return group is not None and bool(group.pids)

    def wake(self, version: ServedVersion) -> None:
        """Begin to start a node of a version that has none, for requests that are to come."""
        group = self._group(version)
        if not group.pids:
            group.wake()

    async def renew(self, version: ServedVersion) -> None:
        """Replace the version's running nodes one by one, without losing a request. Raises ModelLoadError."""
        group = self._group(version)
        if group.pids:
            await group.renew(version)

    async def predict(self, version: ServedVersion, body: bytes, wish: int = PREDICT) -> Answer:
        """The answer of the version's model to a request body, which is passed on unparsed.

        Args:
            wish: PREDICT or EXPLAIN of `modelserver.frames`.

        Raises:
            EngineError: the engine's own failures, see `VersionServer.predict`; NotFound after `retire`.
        """
        group = self._groups.get(version.uid)
        if group is None or group.version is not version:
            group = self._group(version)
        return await group.predict(body, wish)

    async def retire(self, uid: str) -> None:
        """End the server of a deleted version for good, after the requests in flight (10 s at most)."""
        self._retired.add(uid)
        group = self._groups.pop(uid, None)
        if group is not None:
            await group.close(drain_s=_DRAIN_S)

    def lender(self, uid: str) -> Lender | None:
        """Who may lend a client connection to the version's model servers now."""
        group = self._groups.get(uid)
        return None if group is None else group.lender

    def recall(self, uid: str) -> None:
        """Ask for the connections that are lent to the version's model servers."""
        if (group := self._groups.get(uid)) is not None:
            group.recall()

    def groups(self) -> list[NodeGroup]:
        """Those of all versions that were used since the engine started."""
        return list(self._groups.values())

    def pids(self) -> dict[str, int]:
        """Process id of the first node by version uid, of those that are ready now."""
        return {uid: group.pids[0] for uid, group in self._groups.items() if group.pids}

    def describe(self, name: VersionName) -> dict[str, Any]:
        """How a version is served now, for people."""
        group = next((group for group in self._groups.values() if group.version.name == name), None)
        if group is None:
            return {"nodes": 0, "decision": "nobody asked since the engine started"}
        return {
            "nodes": len(group.pids),
            "decision": group.decision.reason,
            "requestsInFlight": group.n_pending,
            "lentConnections": group.n_lent,
            "memoryBytes": sum(node.memory_bytes for node in group.nodes),
        }

    def log_path(self, uid: str) -> Path:
        """Where the output of the model servers of that version goes."""
        return self._logs_dir / f"{uid}.log"

    def _group(self, version: ServedVersion) -> NodeGroup:
        if self._closed:
            raise Unavailable("The engine is shutting down.")
        if version.uid in self._retired:
            raise NotFound(f"{version.name} was deleted.")
        group = self._groups.get(version.uid)
        if group is None:
            make_room = self._make_room if self._memory_bytes else None
            path = self.log_path(version.uid)
            group = self._groups[version.uid] = NodeGroup(version, path, self._limits, make_room)
        group.version = version  # its scaling may have changed
        return group

    async def _look_after_servers(self) -> None:
        while True:
            await asyncio.sleep(max(min(self._limits.idle_s / 4, self._limits.predict_timeout_s / 4, 1.0), 0.05))
            for group in list(self._groups.values()):
                try:
                    await group.look_after()
                except Exception:
                    _log.exception("looking after %s failed", group.version.name)
            if self._memory_bytes:
                await self._hold_to_memory()

    # --- memory ---

    async def _make_room(self, node: VersionServer) -> None:
        """Wait until `node` may start its process, stopping those that were not used for the longest time."""
        needed = self._known_bytes.get(node.version.uid, _USUAL_BYTES)
        async with self._room:
            while True:
                used = self._used_bytes(node)
                if used + needed <= self._memory_bytes or not used:
                    break
                idle = self._least_recently_used(node)
                if idle is None:
                    await asyncio.sleep(_ROOM_EVERY_S)
                    continue
                _log.info(
                    "%s is unloaded, not used for %.0f s: %s needs its memory (%s of %s are in use)",
                    idle.version.name, idle.unused_s, node.version.name, format_size(used),
                    format_size(self._memory_bytes),
                )  # fmt: skip
                await idle.stop()
            self._starting[node] = needed

    async def _hold_to_memory(self) -> None:
        """Stop what is idle while all are beyond the bound; replace a process that is beyond it alone."""
        for group in list(self._groups.values()):
            for node in list(group.nodes):
                if node.memory_bytes > self._memory_bytes:
                    size = format_size(node.memory_bytes)
                    bound = format_size(self._memory_bytes)
                    _log.warning(
                        "%s: a node uses %s, more than serving_memory (%s); replaced", node.version.name, size, bound
                    )
                    await node.stop()
        while self._used_bytes(None) > self._memory_bytes:
            idle = self._least_recently_used(None)
            if idle is None:
                return
            _log.info("%s is unloaded, not used for %.0f s: the memory is used up", idle.version.name, idle.unused_s)
            await idle.stop()

    def _used_bytes(self, starter: VersionServer | None) -> int:
        total = 0
        for group in self._groups.values():
            for node in group.nodes:
                used = node.memory_bytes
                if used:
                    self._known_bytes[node.version.uid] = used
                    self._starting.pop(node, None)
                elif not node.is_starting:
                    self._starting.pop(node, None)
                total += used
        return total + sum(size for node, size in self._starting.items() if node is not starter)

    def _least_recently_used(self, starter: VersionServer | None) -> VersionServer | None:
        idle = [
            node
            for group in self._groups.values()
            for node in group.nodes
            if not group.version.scaling.min_nodes and node is not starter
            if node.pid is not None and not node.n_pending and node.unused_s >= _LEAST_IDLE_S
        ]
        return max(idle, key=lambda node: node.unused_s, default=None)
