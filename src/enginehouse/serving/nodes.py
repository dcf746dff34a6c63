"""The nodes of one version: which of them gets a request, how many there are, and how they are replaced.

Owned by `pool.ServerPool`; belongs to one event loop. A node is a `server.VersionServer`, one process at a time.

A request goes to the node with the fewest in flight. A connection is lent to the node that has the fewest lent, and
stays there; when a node comes, all lent connections are called back, so that they are shared out anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from enginehouse.core.errors import EngineError
from enginehouse.modelserver.frames import PREDICT
from enginehouse.modelserver.journal import N_COUNTERS
from enginehouse.serving.lending import Lender
from enginehouse.serving.limits import Limits
from enginehouse.serving.scaling import Autoscaler, Decision
from enginehouse.serving.server import VersionServer
from enginehouse.serving.types import Answer, DeployReport, ServedVersion

_log = logging.getLogger(__name__)

_DRAIN_S = 10.0

MakeRoom = Callable[[VersionServer], Awaitable[None]]


class NodeGroup:
    """Answers the requests of one version.

    Args:
        make_room: awaited before a node's process starts, if given.

    Attributes:
        decision: the last change of the number of nodes, and why.
    """

    def __init__(
        self, version: ServedVersion, log_path: Path, limits: Limits, make_room: MakeRoom | None = None
    ) -> None:
        self.version = version
        self.decision = Decision(0, "nobody asked yet")
        self._log_path = log_path
        self._limits = limits
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._autoscaler = Autoscaler(idle_s=limits.idle_s, down_after_s=limits.down_after_s)
        self.nodes: list[VersionServer] = [self._new_node()]
        self._told = ""
        self._coming: set[asyncio.Task[None]] = set()
        self._earlier_counters = [0] * N_COUNTERS
        self._earlier_answered = 0
        self._measured_at = self._loop.time()
        self._measured_s: dict[VersionServer, float] = {}
        self._renewing: asyncio.Lock = asyncio.Lock()

    # --- requests ---

    async def deploy(self) -> DeployReport:
        """Load and test the model now, if that is not done already. Raises ModelLoadError."""
        return await self.nodes[0].deploy()

    async def predict(self, body: bytes, wish: int = PREDICT) -> Answer:
        """See `VersionServer.predict`."""
        return await self._least_loaded().predict(body, wish)

    def _least_loaded(self) -> VersionServer:
        if len(self.nodes) == 1:
            return self.nodes[0]
        ready = [node for node in self.nodes if node.pid is not None]
        return min(ready or self.nodes[:1], key=lambda node: node.n_pending)

    @property
    def lender(self) -> Lender | None:
        """Who lends the next connection."""
        if len(self.nodes) == 1:
            return self.nodes[0].lender
        return min((each for node in self.nodes if (each := node.lender) is not None), key=len, default=None)

    def recall(self) -> None:
        """Ask for all connections that are lent."""
        for node in self.nodes:
            if (lender := node.lender) is not None:
                lender.recall()

    # --- what it looks like ---

    @property
    def pids(self) -> list[int]:
        """Process ids of the nodes that are ready."""
        return [pid for node in self.nodes if (pid := node.pid) is not None]

    @property
    def n_pending(self) -> int:
        """Requests in flight, without those on lent connections."""
        return sum(node.n_pending for node in self.nodes)

    @property
    def n_lent(self) -> int:
        """Connections that the nodes answer themselves."""
        return sum(len(node.lender or ()) for node in self.nodes)

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one is in flight or a node starts."""
        return min(node.idle_s for node in self.nodes)

    @property
    def unused_s(self) -> float:
        """Seconds since the last request, whether it was answered here or on a lent connection."""
        return min(node.unused_s for node in self.nodes)

    @property
    def n_answered(self) -> int:
        """Requests answered so far, by all nodes that there were."""
        return self._earlier_answered + sum(node.n_answered for node in self.nodes)

    @property
    def counters(self) -> list[int]:
        """What the model servers counted in all their lives, by word of `modelserver.journal`."""
        return [sum(words) for words in zip(self._earlier_counters, *(n.counters for n in self.nodes), strict=True)]

    # --- their number ---

    async def look_after(self) -> None:
        """End what hangs, stop what is idle, start or stop nodes. Called about once a second."""
        for node in list(self.nodes):
            await node.kill_if_over_time()
        n_nodes = sum(node.pid is not None or node.is_starting for node in self.nodes)
        now_s = self._loop.time()
        decision = self._autoscaler.decide(self.version.scaling, n_nodes, self._usage(now_s), self.idle_s, now_s)
        if decision.n_nodes != n_nodes:
            self.decision = decision
            _log.info("%s: %d → %d node(s): %s", self.version.name, n_nodes, decision.n_nodes, decision.reason)
        if decision.n_nodes > n_nodes:
            for _ in range(decision.n_nodes - n_nodes):
                self._add_node()
        elif decision.n_nodes == 0 and n_nodes:
            for node in list(self.nodes):
                await node.stop()
            for node in self.nodes[1:]:
                self._let_go(node)
            del self.nodes[1:]
        elif decision.n_nodes < n_nodes and len(self.nodes) > 1:
            node = self.nodes.pop()
            self._let_go(node)
            await node.close(drain_s=_DRAIN_S)

    def _usage(self, now_s: float) -> float | None:
        """The share of a processor that each node used since the last look; asked only where it decides something."""
        if self.version.scaling.max_nodes == self.version.scaling.min_nodes or self.version.scaling.max_nodes == 1:
            return None
        before, self._measured_s = self._measured_s, {node: node.cpu_s for node in self.nodes if node.pid is not None}
        elapsed_s, self._measured_at = now_s - self._measured_at, now_s
        used = [now - before[node] for node, now in self._measured_s.items() if node in before]
        return sum(max(0.0, each) for each in used) / len(used) / elapsed_s if used and elapsed_s > 0 else None

    def wake(self) -> None:
        """Begin to start the first node, where there is none."""
        if not any(node.pid is not None or node.is_starting for node in self.nodes):
            self._add_node()

    def _add_node(self) -> None:
        """Start one more; it gets requests when it is ready."""
        free = next((node for node in self.nodes if node.pid is None and not node.is_starting), None)
        node = free or self._new_node()
        if node not in self.nodes:
            self.nodes.append(node)
        task = self._loop.create_task(self._bring_up(node))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _bring_up(self, node: VersionServer) -> None:
        try:
            await node.ensure()
        except EngineError as error:
            if error.message != self._told:
                self._told = error.message
                _log.warning("%s: a node could not be started: %s", self.version.name, error.message)
            if node in self.nodes and len(self.nodes) > 1:
                self.nodes.remove(node)
                self._let_go(node)
        else:
            if len(self.nodes) > 1:
                self.recall()  # shares out the lent connections anew

    def _new_node(self) -> VersionServer:
        return VersionServer(self.version, self._log_path, self._limits, make_room=self._make_room)

    def _let_go(self, node: VersionServer) -> None:
        self._earlier_counters = [a + b for a, b in zip(self._earlier_counters, node.counters, strict=True)]
        self._earlier_answered += node.n_answered
        self._measured_s.pop(node, None)

    # --- replacing and ending them ---

    async def renew(self, version: ServedVersion) -> None:
        """Replace each node by a new one of `version`: first the new one is ready, then the old one ends.

        No request is lost: those in flight are answered by the old node, later ones by the new.

        Raises:
            ModelLoadError: a new node can't be had; the old ones stay.
        """
        async with self._renewing:
            before, self.version = self.version, version
            for old in list(self.nodes):
                if old.pid is None and not old.is_starting and len(self.nodes) > 1:
                    continue
                new = self._new_node()
                try:
                    await new.deploy()
                except BaseException:
                    self.version = before
                    await new.close()
                    raise
                if old in self.nodes:
                    self.nodes[self.nodes.index(old)] = new
                    self._let_go(old)
                    await old.close(drain_s=_DRAIN_S)
                else:  # scaled away meanwhile
                    await new.close()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """End all for good; see `VersionServer.close`."""
        for task in list(self._coming):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._coming, return_exceptions=True)
        await asyncio.gather(*(node.close(drain_s=drain_s) for node in self.nodes))
