"""When versions were last asked for predictions: `lastUseTime`.

In: the counters of the model servers. Out: a time in the metadata store, at most some seconds late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.metadata.base import MetadataStore
from enginehouse.serving.nodes import NodeGroup

_PASS_S = 10.0


class VersionUses:
    """Looks every ten seconds which versions have answered something since.

    Args:
        servers: those of all versions that were used since the engine started.
    """

    def __init__(self, store: MetadataStore, servers: Callable[[], Iterable[NodeGroup]], clock: Clock) -> None:
        self._store = store
        self._servers = servers
        self._clock = clock
        self._n_answered: dict[str, int] = {}
        self._background = Background("version uses", self._pass, retry_s=_PASS_S)

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """End, with what has happened since the last look."""
        self._background.stop()
        self.note()

    def note(self) -> None:
        """Store the times of the versions that were asked since the last look."""
        for server in self._servers():
            n_answered = server.n_answered
            if n_answered != self._n_answered.get(server.version.uid, 0):
                self._n_answered[server.version.uid] = n_answered
                self._store.use_version(server.version.name, self._clock.time_ns() - int(server.idle_s * 1e9))

    def _pass(self) -> float:
        self.note()
        return _PASS_S
