"""The engine's own small API, for `mle`: health, status, logs by cursor, runtimes, settings, shutdown.

Everything that ml v1 has a method for goes through ml v1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from enginehouse import __version__
from enginehouse.api.http import endpoint, in_thread, json_response
from enginehouse.core.clock import Clock
from enginehouse.core.errors import InvalidArgument, PermissionDenied
from enginehouse.core.names import JobName
from enginehouse.core.settings import SETTINGS, Settings
from enginehouse.core.units import format_time
from enginehouse.jobs.queue import ITS_TURN
from enginehouse.metadata.base import MetadataStore
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.runtimes.inventory import Inventory
from enginehouse.telemetry.joblog import JobLog
from enginehouse.telemetry.segments import LogRecord

_MAX_ENTRIES = 1000
_MAX_WAIT_S = 30.0
_WAIT_POLL_S = 0.05


@dataclass(frozen=True)
class EngineApi:
    """The handlers.

    Args:
        job_log: gives the log of a job, live.
        shut_down: ends the engine as SIGTERM does.
        url: where the engine answers.
        gateway_url: where the gateway answers, None while there is none.
        grpc_address: HOST:PORT where gRPC is answered, None where it is not.
        hardware: what jobs share, and which job has which GPU.
        warm_pool: interpreters that wait for jobs.
        flush_requests: writes the sampled requests to their tables.
    """

    store: MetadataStore
    catalogue: Catalogue
    settings: Settings
    clock: Clock
    job_log: Callable[[JobName], JobLog]
    shut_down: Callable[[], None]
    url: str
    gateway_url: Callable[[], str | None]
    grpc_address: Callable[[], str | None]
    hardware: Callable[[], dict[str, Any]]
    warm_pool: Callable[[], list[dict[str, Any]]]
    start_time_ns: int
    flush_requests: Callable[[], None]

    def routes(self) -> list[BaseRoute]:
        prefix = "/enginehouse/v1"
        return [
            Route("/healthz", endpoint(self._health), methods=["GET"]),
            Route(prefix + "/status", endpoint(self._status), methods=["GET"]),
            Route(prefix + "/projects/{project}/jobs/{job}/logs", endpoint(self._logs), methods=["GET"]),
            Route(prefix + "/projects/{project}/jobs/{job}/waiting", endpoint(self._waiting), methods=["GET"]),
            Route(prefix + "/runtimes", endpoint(self._runtimes), methods=["GET"]),
            Route(prefix + "/settings", endpoint(self._settings), methods=["GET"]),
            Route(prefix + "/requests:flush", endpoint(self._flush_requests), methods=["POST"]),
            Route(prefix + "/shutdown", endpoint(self._shutdown), methods=["POST"]),
        ]

    async def _health(self, request: Request) -> Response:
        return json_response(request, {"status": "ok"})

    async def _status(self, request: Request) -> Response:
        jobs = await in_thread(self.store.count_jobs)
        models, versions = await in_thread(self.store.count_registry)
        status = {
            "version": __version__,
            "url": self.url,
            "gatewayUrl": self.gateway_url(),
            "grpcAddress": self.grpc_address(),
            "dataDir": str(self.settings.data_dir),
            "pid": os.getpid(),
            "startTime": format_time(self.start_time_ns),
            "project": self.settings.project,
            "jobs": jobs,
            "models": models,
            "versions": versions,
            "hardware": self.hardware(),
            "warmPool": await in_thread(self.warm_pool),
        }
        return json_response(request, status)

    async def _waiting(self, request: Request) -> Response:
        """Why a job is still in the queue; empty when it is not."""
        name = JobName(request.path_params["project"], request.path_params["job"])
        job = await in_thread(self.store.get_job, name)
        reason = (job.waiting_reason or ITS_TURN) if job.state == "QUEUED" else ""
        return json_response(request, {"reason": reason})

    async def _logs(self, request: Request) -> Response:
        """A job's log from a cursor on; waits up to `waitS` seconds for something new."""
        name = JobName(request.path_params["project"], request.path_params["job"])
        cursor = request.query_params.get("cursor", "")
        limit = min(int(_number(request, "limit", _MAX_ENTRIES)) or _MAX_ENTRIES, _MAX_ENTRIES)
        deadline = self.clock.monotonic() + min(_number(request, "waitS", 0.0), _MAX_WAIT_S)
        while True:
            entries, cursor, ended = await in_thread(self._read_logs, name, cursor, limit)
            if entries or ended or self.clock.monotonic() >= deadline:
                break
            await asyncio.sleep(_WAIT_POLL_S)
        return json_response(request, {"entries": entries, "cursor": cursor, "ended": ended})

    def _read_logs(self, name: JobName, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str, bool]:
        # The job first: when it has ended, every line of its log was written before.
        terminal = self.store.get_job(name).is_terminal
        records, cursor = self.job_log(name).read(cursor, limit)
        return [_entry(record) for record in records], cursor, terminal and len(records) < limit

    async def _runtimes(self, request: Request) -> Response:
        return json_response(request, {"runtimes": await in_thread(self._list_runtimes)})

    def _list_runtimes(self) -> list[dict[str, Any]]:
        return Inventory(self.settings.runtimes_dir, self.catalogue).rows()

    async def _settings(self, request: Request) -> Response:
        values = asdict(self.settings)
        values["token"] = "(set)" if self.settings.token else ""
        rows = [{"name": s.name, "value": _plain(values[s.name]), "doc": s.doc} for s in SETTINGS]
        return json_response(request, {"settings": rows})

    async def _flush_requests(self, request: Request) -> Response:
        await in_thread(self.flush_requests)
        return json_response(request, {"bucket": self.settings.requests_bucket})

    async def _shutdown(self, request: Request) -> Response:
        if request.client is not None and request.client.host not in ("127.0.0.1", "::1"):
            raise PermissionDenied("An engine is shut down only from its own machine.")
        self.shut_down()
        return json_response(request, {})


def _entry(record: LogRecord) -> dict[str, Any]:
    return {
        "timestamp": format_time(record.timestamp_ns, digits=9),
        "insertId": record.insert_id,
        "severity": record.severity,
        "message": record.message,
        "taskName": record.task_name,
        "trialId": record.fields.get("trial_id", ""),
    }


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, "")
    try:
        return max(0.0, float(text)) if text else default
    except ValueError:
        raise InvalidArgument(f"{text!r} is not a number.", field=name) from None


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, bool)) else str(value)
