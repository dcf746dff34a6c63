"""Calls by gRPC, counted and timed for `/metrics`."""

from __future__ import annotations

_NAME = "enginehouse_grpc_call_seconds"


class CallMetrics:
    """Belongs to the loop that answers the calls."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], tuple[int, float]] = {}

    def observe(self, method: str, code: str, seconds: float) -> None:
        """A call was answered.

        Args:
            method: `PACKAGE.SERVICE/METHOD`.
            code: the status' name.
        """
        n_calls, total_s = self._calls.get((method, code), (0, 0.0))
        self._calls[method, code] = n_calls + 1, total_s + seconds

    def render(self) -> str:
        """Prometheus' text format."""
        lines = [f"# HELP {_NAME} Calls by gRPC and the time they took.", f"# TYPE {_NAME} summary"]
        for (method, code), (n_calls, total_s) in self._calls.items():
            labels = f'{{method="{method}",code="{code}"}}'
            lines += [f"{_NAME}_sum{labels} {total_s:.9g}", f"{_NAME}_count{labels} {n_calls}"]
        return "\n".join(lines) + "\n"
