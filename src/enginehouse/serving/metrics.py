"""What the model servers count, in Prometheus' text format. Served at `/metrics` by `main`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from enginehouse.modelserver.journal import BOUNDS_S, CLOSED, EXPLANATION, N_UNTOLD, PREDICTION
from enginehouse.serving.nodes import NodeGroup
from enginehouse.serving.pool import ServerPool

_PREDICTION = "enginehouse_prediction_phase_seconds"
_EXPLANATION = "enginehouse_explanation_phase_seconds"
_CLOSED = "enginehouse_prediction_batches_total"
_UP = "enginehouse_model_server_up"
_LENT = "enginehouse_model_server_lent_connections"
_UNTOLD = "enginehouse_prediction_unlogged_requests_total"


def render(pool: ServerPool) -> str:
    """All metrics of the prediction path."""
    groups = pool.groups()
    lines = [
        f"# HELP {_PREDICTION} Time of prediction requests in each phase: queue, decode, model, encode.",
        f"# TYPE {_PREDICTION} histogram",
        *(line for group in groups for line in _durations(group, _PREDICTION, PREDICTION)),
        f"# HELP {_EXPLANATION} Time of requests for explanations in each phase: queue, decode, model, encode.",
        f"# TYPE {_EXPLANATION} histogram",
        *(
            line
            for group in groups
            if group.version.explanation
            for line in _durations(group, _EXPLANATION, EXPLANATION)
        ),
        f"# HELP {_CLOSED} Batches of requests by what closed them.",
        f"# TYPE {_CLOSED} counter",
        *(
            f'{_CLOSED}{{{_labels(group)},closed_by="{reason}"}} {group.counters[word]}'
            for group in groups
            for reason, word in CLOSED.items()
        ),
        f"# HELP {_UP} Nodes of the version: model servers that are running.",
        f"# TYPE {_UP} gauge",
        *(f"{_UP}{{{_labels(group)}}} {len(group.pids)}" for group in groups),
        f"# HELP {_LENT} Client connections that the model server answers itself.",
        f"# TYPE {_LENT} gauge",
        *(f"{_LENT}{{{_labels(group)}}} {group.n_lent}" for group in groups),
        f"# HELP {_UNTOLD} Requests that a model server was to log and the engine did not read in time.",
        f"# TYPE {_UNTOLD} counter",
        *(f"{_UNTOLD}{{{_labels(group)}}} {group.counters[N_UNTOLD]}" for group in groups),
    ]
    return "\n".join(lines) + "\n"


def _labels(group: NodeGroup) -> str:
    name = group.version.name
    return f'project="{name.project}",model="{name.model_id}",version="{name.version_id}"'


def _durations(group: NodeGroup, name: str, phases: Mapping[str, int]) -> Iterator[str]:
    for phase, first in phases.items():
        labels = f'{_labels(group)},phase="{phase}"'
        *counts, total_ns = group.counters[first : first + len(BOUNDS_S) + 2]
        bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {total_ns / 1e9:.9g}"
        yield f"{name}_count{{{labels}}} {sum(counts)}"
