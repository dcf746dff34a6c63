"""What the server of one version may use: time, queue, memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one version's server may use.

    Args:
        predict_timeout_s: from a request's arrival to its answer, the start of the server included.
        load_timeout_s: from the start of the process until the model is loaded and tested.
        idle_s: without a request for so long, the process is stopped.
        max_pending: requests in flight; one more is refused with RESOURCE_EXHAUSTED.
        max_pending_bytes: their bodies together.
        max_batch_rows: rows of a merged call; 1 turns merging off.
        max_wait_s: a request that would wait for its turn longer than that, as far as the model server can tell, is
            refused, too.
        memory_bytes: of a process; allocating more fails. 0 for no bound.
        grace_s: between the SIGTERM and the SIGKILL of a container.
        health_every_s: between looks at the health of a container.
        down_after_s: a node that was not needed for so long is stopped, if it is not the last (`idle_s` is for that).
    """

    predict_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    idle_s: float = 900.0
    max_pending: int = 1024
    max_pending_bytes: int = 256 * 1024 * 1024
    max_batch_rows: int = 1024
    max_wait_s: float = 10.0
    memory_bytes: int = 0
    down_after_s: float = 60.0
    grace_s: float = 10.0
    health_every_s: float = 10.0


DEFAULT_LIMITS = Limits()
