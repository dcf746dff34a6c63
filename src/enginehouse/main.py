"""The composition root: the only place that knows everything.

`serve` runs an engine until SIGTERM or SIGINT; `Engine` is the same without signals, for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import uv as uv_tool
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from enginehouse.api.engine import EngineApi
from enginehouse.api.http import on_http_exception
from enginehouse.api.logging import LoggingApi
from enginehouse.api.ml_v1 import MlApi
from enginehouse.api.ml_v1.iam import IamApi
from enginehouse.api.ml_v1.places import place_routes
from enginehouse.api.storage import storage_routes
from enginehouse.backends.local import LocalBackend
from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from enginehouse.core.files import FileLock, atomic_write_json, read_json
from enginehouse.core.settings import Settings
from enginehouse.core.units import format_time
from enginehouse.iam.service import PolicyService
from enginehouse.jobs.entries import LogEntries
from enginehouse.jobs.logs import job_log
from enginehouse.jobs.reconciler import JobReconciler
from enginehouse.jobs.service import JobService
from enginehouse.jobs.validate import Validator
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.registry.deployer import Deployer
from enginehouse.registry.directory import StoredVersions
from enginehouse.registry.service import RegistryService
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.router import PredictApp
from enginehouse.serving.server import Limits
from enginehouse.storage.local import LocalObjectStore

_log = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 10
_LOCK_EVERY_S = 0.05
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
_LOOPBACK_PEERS = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})


class Engine:
    """One engine on one data directory.

    Args:
        settings: where to listen and where everything lies.
        clock: the host's clock, outside of tests.

    Raises:
        InvalidArgument: a host that is not loopback without a token.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        if settings.host not in _LOOPBACK_HOSTS and not settings.token:
            raise InvalidArgument(
                f"Listening on {settings.host} lets other machines in. Set a token first (ENGINEHOUSE_TOKEN), which "
                "they must send as 'Authorization: Bearer TOKEN'.",
                field="token",
            )
        self.settings = settings
        self._clock = clock or SystemClock()
        self._server: uvicorn.Server | None = None
        self._shutting_down = False

    def run(self) -> None:
        """Serve until `shut_down` is called.

        Raises:
            FailedPrecondition: another engine holds the data directory, the port is taken, or the data is newer than
                this release.
        """
        settings = self.settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(settings.lock_path)
        if not _acquire(lock):
            raise FailedPrecondition(_taken_message(settings))
        try:
            listener = _listen(settings)
            with contextlib.closing(listener):
                self._serve(listener)
        finally:
            settings.engine_file.unlink(missing_ok=True)
            lock.release()

    def shut_down(self) -> None:
        """Let `run` end: requests under way are answered, jobs go on, model servers stop."""
        self._shutting_down = True
        if self._server is not None:
            self._server.should_exit = True

    def _serve(self, listener: socket.socket) -> None:
        host, port = self.settings.host, listener.getsockname()[1]
        url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
        config = uvicorn.Config(
            self._compose(url, port),
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=1 << 20,
        )
        self._server = uvicorn.Server(config)
        self._server.should_exit = self._shutting_down
        # uvicorn would replay the signal after its shutdown and end the process with it; `serve` handles signals.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(self._server.serve(sockets=[listener]))

    def _compose(self, url: str, port: int) -> ASGIApp:
        settings, clock = self.settings, self._clock
        uv = Path(uv_tool.find_uv_bin())
        store = SqlMetadataStore.open_sqlite(settings.metadata_path, clock)
        store.clear_leases()  # whoever held them is dead: the data directory is locked
        storage = LocalObjectStore(settings.objects_dir, clock)
        catalogue = Catalogue.load(uv=uv)
        runtimes = RuntimeCache(settings.runtimes_dir, uv)
        reconciler = JobReconciler(store, storage, LocalBackend(), settings, clock, engine_url=url, uv=uv)
        jobs = JobService(store, Validator(catalogue, storage), clock, reconciler.wake)
        directory = StoredVersions(store, catalogue, runtimes, settings.versions_dir)
        limits = Limits(
            predict_timeout_s=settings.predict_timeout_s,
            load_timeout_s=settings.version_create_timeout_s,
            idle_s=settings.server_idle_s,
        )
        pool = ServerPool(settings.server_logs_dir, limits)
        predict = PredictApp(directory, pool, max_body_bytes=settings.max_body_bytes)
        deployer = Deployer(store, storage, catalogue, runtimes, pool, settings.versions_dir, clock, directory)
        loop: asyncio.AbstractEventLoop | None = None

        def forget(project: str, model_id: str) -> None:
            # On the loop, after whatever the router is just looking up: it must not keep what is out of date.
            if loop is not None:
                loop.call_soon_threadsafe(predict.forget, project, model_id)

        directory.forget = forget
        registry = RegistryService(
            store,
            storage,
            catalogue,
            clock,
            wake=deployer.wake,
            forget=forget,
            retire=deployer.retire,
        )
        engine_api = EngineApi(
            store=store,
            catalogue=catalogue,
            runtimes=runtimes,
            settings=settings,
            clock=clock,
            job_log=lambda name: job_log(store, settings.jobs_dir, name),
            shut_down=self.shut_down,
            url=url,
            start_time_ns=clock.time_ns(),
        )
        ml_routes = [
            *IamApi(PolicyService(store), settings.max_body_bytes).routes(),
            *place_routes(),
            *LoggingApi(LogEntries(store, settings.jobs_dir, clock), settings.max_body_bytes).routes(),
            *MlApi(jobs, registry, settings.max_body_bytes).routes(),
        ]

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            nonlocal loop
            loop = asyncio.get_running_loop()
            await pool.start()
            reconciler.start()
            deployer.start(loop)
            self._announce(url, port)
            try:
                yield
            finally:
                await loop.run_in_executor(None, reconciler.stop)
                await loop.run_in_executor(None, deployer.stop)
                await pool.close()
                storage.close()
                store.close()

        web = Starlette(
            routes=[*engine_api.routes(), *ml_routes, *storage_routes(storage)],
            exception_handlers={HTTPException: on_http_exception},
            lifespan=lifespan,
        )
        return _Front(web, predict, settings.token)

    def _announce(self, url: str, port: int) -> None:
        """Tell `mle` where this engine is."""
        info = {
            "url": url,
            "port": port,
            "pid": os.getpid(),
            "startTime": format_time(self._clock.time_ns()),
        }
        atomic_write_json(self.settings.engine_file, info)
        atomic_write_json(_last_port_file(self.settings), port)
        _log.info("listening on %s, data in %s", url, self.settings.data_dir)


class _Front:
    """The first look at a request: tokens for strangers, and the short way for predictions."""

    def __init__(self, web: ASGIApp, predict: ASGIApp, token: str) -> None:
        self._web = web
        self._predict = predict
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._expected and not self._may_enter(scope):
                await _refuse(scope, receive, send)
                return
            if PredictApp.matches(scope):
                await self._predict(scope, receive, send)
                return
        await self._web(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        client = scope.get("client")
        if client is not None and client[0] in _LOOPBACK_PEERS:
            return True
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(sent, self._expected)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = Unauthenticated("Send the engine's token: 'Authorization: Bearer TOKEN' (setting token).")
    body = orjson.dumps(error.to_http_body())
    headers = {"WWW-Authenticate": "Bearer"}
    await Response(body, error.http_status, headers, media_type="application/json")(scope, receive, send)


def serve(settings: Settings) -> None:
    """Run an engine in the foreground until SIGTERM or SIGINT (Ctrl-C). See `Engine.run` for the errors."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    engine = Engine(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: engine.shut_down())
    engine.run()


def _listen(settings: Settings) -> socket.socket:
    """Bind the port; for port 0 the last one again if it is free, since running jobs know the engine by it."""
    wanted = settings.port
    last = read_json(_last_port_file(settings)) if wanted == 0 else None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    for port in [last, wanted] if last else [wanted]:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as error:
            listener.close()
            if port == wanted:
                raise FailedPrecondition(
                    f"Can't listen on {settings.host}:{port}: {error.strerror}. Choose another port with --port, or "
                    "0 for a free one."
                ) from None
        else:
            listener.listen(2048)
            return listener
    raise AssertionError("unreachable")


def _acquire(lock: FileLock) -> bool:
    """Take the data directory's lock. Who only looks whether it is held, holds it for a moment: try again."""
    for _ in range(_LOCK_ATTEMPTS):
        if lock.acquire(blocking=False):
            return True
        time.sleep(_LOCK_EVERY_S)
    return False


def _last_port_file(settings: Settings) -> Path:
    return settings.data_dir / "port.json"


def _taken_message(settings: Settings) -> str:
    info = read_json(settings.engine_file) or {}
    who = f" (pid {info['pid']}, {info['url']})" if "pid" in info else ""
    return (
        f"An engine is running on {settings.data_dir} already{who}. Stop it with `mle down --data-dir "
        f"{settings.data_dir}`, or give this one another --data-dir."
    )
