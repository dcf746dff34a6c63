"""How many nodes a version has: decided from what it asked for, how busy they are, and how long nobody asked.

No processes here: `nodes.NodeGroup` measures, asks and acts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

DEFAULT_CPU_TARGET = 0.6
_UP_EVERY_S = 5.0
"""Between two steps up: a new node needs a moment until the others feel it."""


@dataclass(frozen=True)
class Scaling:
    """What a version asked for.

    Args:
        min_nodes: kept running without requests; 0 lets the last one stop.
        max_nodes: as many at most.
        cpu_target: share of a processor that a node is to use; more nodes are started when they use more.
    """

    min_nodes: int = 0
    max_nodes: int = 1
    cpu_target: float = DEFAULT_CPU_TARGET

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Scaling:
        """From a stored version's `autoScaling` or `manualScaling`; one node at most where it has neither."""
        manual, auto = request.get("manualScaling"), request.get("autoScaling")
        if manual:
            nodes = max(1, int(manual.get("nodes") or 1))
            return cls(nodes, nodes)
        if not auto:
            return cls()
        min_nodes = int(auto.get("minNodes") or 0)
        max_nodes = int(auto.get("maxNodes") or max(min_nodes, len(os.sched_getaffinity(0))))
        targets = [m["target"] for m in auto.get("metrics", ()) if m.get("name") == "CPU_USAGE" and m.get("target")]
        return cls(min_nodes, max(1, min_nodes, max_nodes), targets[0] / 100 if targets else DEFAULT_CPU_TARGET)


class Decision(NamedTuple):
    """So many nodes from now on, and why."""

    n_nodes: int
    reason: str


class Autoscaler:
    """Decides for one version, asked every second or so.

    Args:
        idle_s: without a request for so long, the last node is stopped.
        down_after_s: a node that is not needed is stopped after that time.
    """

    def __init__(self, *, idle_s: float, down_after_s: float) -> None:
        self._idle_s = idle_s
        self._down_after_s = down_after_s
        self._up_at = -math.inf
        self._spare_since: float | None = None

    def decide(self, scaling: Scaling, n_nodes: int, usage: float | None, idle_s: float, now_s: float) -> Decision:
        """How many nodes there shall be.

        Args:
            n_nodes: how many there are, those that start included.
            usage: share of a processor that each of them uses, in the mean; None where that is not known.
            idle_s: seconds since the last request.
        """
        least = scaling.min_nodes
        if n_nodes < least:
            return Decision(least, f"at least {least} node(s) are asked for")
        if n_nodes == 0:
            return Decision(0, "nobody asks")
        if n_nodes > scaling.max_nodes:
            return Decision(scaling.max_nodes, f"at most {scaling.max_nodes} node(s) are asked for")
        if least == 0 and idle_s >= self._idle_s:
            return Decision(0, f"no request for {idle_s:.0f} s")
        if usage is None:
            return Decision(n_nodes, "as it is")
        wanted = max(least, 1, min(scaling.max_nodes, math.ceil(n_nodes * usage / scaling.cpu_target)))
        if wanted >= n_nodes:
            self._spare_since = None
        if wanted > n_nodes:
            if now_s - self._up_at < _UP_EVERY_S:
                return Decision(n_nodes, "the last step up is too recent")
            self._up_at = now_s
            wanted = min(wanted, 2 * n_nodes)
            return Decision(wanted, f"nodes use {usage:.0%} of a processor, the target is {scaling.cpu_target:.0%}")
        if wanted < n_nodes:
            if self._spare_since is None:
                self._spare_since = now_s
            elif now_s - self._spare_since >= self._down_after_s:
                self._spare_since = None
                return Decision(n_nodes - 1, f"{wanted} node(s) were enough for {self._down_after_s:.0f} s")
        return Decision(n_nodes, "as it is")
