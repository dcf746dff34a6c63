"""What the model servers count, in Prometheus' text format. Served at `/metrics` by `main`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from enginehouse.modelserver.journal import BOUNDS_S, CLOSED, PHASES
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.server import VersionServer

_DURATION = "enginehouse_prediction_phase_seconds"
_CLOSED = "enginehouse_prediction_batches_total"
_UP = "enginehouse_model_server_up"
_LENT = "enginehouse_model_server_lent_connections"


def render(pool: ServerPool) -> str:
    """All metrics of the prediction path."""
    servers = pool.servers()
    lines = [
        f"# HELP {_DURATION} Time of prediction requests in each phase: queue, decode, model, encode.",
        f"# TYPE {_DURATION} histogram",
        *(line for server in servers for line in _durations(server)),
        f"# HELP {_CLOSED} Batches of requests by what closed them.",
        f"# TYPE {_CLOSED} counter",
        *(
            f'{_CLOSED}{{{_labels(server)},closed_by="{reason}"}} {server.counters[word]}'
            for server in servers
            for reason, word in CLOSED.items()
        ),
        f"# HELP {_UP} Whether the version's model server is running.",
        f"# TYPE {_UP} gauge",
        *(f"{_UP}{{{_labels(server)}}} {int(server.pid is not None)}" for server in servers),
        f"# HELP {_LENT} Client connections that the model server answers itself.",
        f"# TYPE {_LENT} gauge",
        *(f"{_LENT}{{{_labels(server)}}} {len(server.lender or ())}" for server in servers),
    ]
    return "\n".join(lines) + "\n"


def _labels(server: VersionServer) -> str:
    name = server.version.name
    return f'project="{name.project}",model="{name.model_id}",version="{name.version_id}"'


def _durations(server: VersionServer) -> Iterator[str]:
    for phase, first in PHASES.items():
        labels = f'{_labels(server)},phase="{phase}"'
        *counts, total_ns = server.counters[first : first + len(BOUNDS_S) + 2]
        bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            yield f'{_DURATION}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{_DURATION}_sum{{{labels}}} {total_ns / 1e9:.9g}"
        yield f"{_DURATION}_count{{{labels}}} {sum(counts)}"
