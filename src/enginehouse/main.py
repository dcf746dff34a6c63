"""The composition root: the only place that knows everything.

`serve` runs an engine until SIGTERM or SIGINT; `Engine` is the same without signals, for tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import hmac
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import uv as uv_tool
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from enginehouse.api.auth import AuthApi
from enginehouse.api.discovery import discovery_routes
from enginehouse.api.engine import EngineApi
from enginehouse.api.http import on_http_exception
from enginehouse.api.lendable import LendableProtocol
from enginehouse.api.logging import LoggingApi
from enginehouse.api.ml_v1 import MlApi
from enginehouse.api.ml_v1.iam import IamApi
from enginehouse.api.ml_v1.methods import ml_routes
from enginehouse.api.ml_v1.places import place_handlers
from enginehouse.api.ml_v1.studies import StudiesApi
from enginehouse.api.open_inference import OpenInference
from enginehouse.api.serving import ServingApi
from enginehouse.api.storage import storage_routes
from enginehouse.api.storage.hosts import StorageHosts, is_for_json_api
from enginehouse.api.storage.kept import KeptAnswers
from enginehouse.api.storage.routing import StorageApp
from enginehouse.backends.local import ContainerEngines, LocalBackend
from enginehouse.backends.local.warm import WarmPool
from enginehouse.backends.local.warm import limits as warm_limits
from enginehouse.core.clock import Clock, SystemClock
from enginehouse.core.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from enginehouse.core.files import FileLock, atomic_write_json, read_json
from enginehouse.core.loopback import LOOPBACK_HOSTS, LOOPBACK_PEERS
from enginehouse.core.names import ModelName, VersionName
from enginehouse.core.settings import Settings
from enginehouse.core.units import format_time
from enginehouse.gateway.clients import prepare_client
from enginehouse.gateway.environment import DEFAULT_TOKEN, Wiring, original_environment
from enginehouse.gateway.proxy import GatewayServer
from enginehouse.iam.service import PolicyService
from enginehouse.jobs.entries import LogEntries
from enginehouse.jobs.logs import job_log
from enginehouse.jobs.reconciler import JobReconciler
from enginehouse.jobs.service import JobService
from enginehouse.jobs.validate import Validator
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.registry.containers import Containers
from enginehouse.registry.deployer import Deployer
from enginehouse.registry.directory import StoredVersions
from enginehouse.registry.messages import SCHEMA
from enginehouse.registry.models import RegisteredModels
from enginehouse.registry.service import RegistryService
from enginehouse.registry.traffic import TrafficService
from enginehouse.registry.uses import VersionUses
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.serving.hearing import Hearing
from enginehouse.serving.inference import Inference
from enginehouse.serving.limits import Limits
from enginehouse.serving.logs import PredictionLogs
from enginehouse.serving.metrics import render
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.recording import RequestRecorder
from enginehouse.serving.router import PredictApp
from enginehouse.serving.traffic import Verdict
from enginehouse.serving.usage import budget_bytes
from enginehouse.storage.mapped import MappedObjectStore, parse_mappings
from enginehouse.storage.remote import Service
from enginehouse.tuning.job_output import TuningOutputs
from enginehouse.tuning.search import SearchPolicy
from enginehouse.tuning.service import StudyService
from enginehouse.tuning.trials import TuningReconciler

if TYPE_CHECKING:
    from enginehouse.api.rpc.server import RpcServer

_log = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 10
_LOCK_EVERY_S = 0.05
_GC_THRESHOLDS = 10_000, 20, 20
"""Python's are 700, 10, 10: a list of a hundred jobs alone would mean a dozen collections."""


class Engine:
    """One engine on one data directory.

    Args:
        settings: where to listen and where everything lies.
        clock: the host's clock, outside of tests.

    Raises:
        InvalidArgument: a host that is not loopback without a token.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        if settings.host not in LOOPBACK_HOSTS and not settings.token:
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
        url = _url(self.settings.host, listener.getsockname()[1])
        composition = self._compose(url)
        front = composition.app

        class Protocol(LendableProtocol):
            def at_once(self, scope: Scope) -> Response | None:
                return front.at_once(scope)

        config = uvicorn.Config(
            front,
            log_config=None,
            access_log=False,
            lifespan="off",  # uvicorn would print a traceback for whatever keeps `running` from its start
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
            http=Protocol,
        )
        self._server = server = uvicorn.Server(config)
        self._server.should_exit = self._shutting_down
        # uvicorn would replay the signal after its shutdown and end the process with it; `serve` handles signals.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]

        async def serve() -> None:
            async with composition.running():
                await server.serve(sockets=[listener])

        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())

    def _compose(self, url: str) -> Composition:
        return Composition(
            self.settings,
            self._clock,
            url,
            shut_down=self.shut_down,
            ready=lambda gateway_url, grpc_address: self._announce(url, gateway_url, grpc_address),
        )

    def _announce(self, url: str, gateway_url: str | None, grpc_address: str | None) -> None:
        """Tell `mle` where this engine is."""
        info = {
            "url": url,
            "gatewayUrl": gateway_url,
            "grpcAddress": grpc_address,
            "pid": os.getpid(),
            "startTime": format_time(self._clock.time_ns()),
        }
        atomic_write_json(self.settings.engine_file, info)
        ports = [urlsplit(each).port if each else None for each in (url, gateway_url)]
        atomic_write_json(_last_ports_file(self.settings), ports)
        data_dir = self.settings.data_dir
        _log.info("listening on %s, gateway %s, gRPC %s, data in %s", url, gateway_url, grpc_address, data_dir)


class Composition:
    """All parts of one engine, put together.

    Args:
        url: where the engine answers.
        shut_down: ends the engine as SIGTERM does.
        ready: called with the gateway's URL and the address for gRPC (or None) when everything has started.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        url: str,
        *,
        shut_down: Callable[[], None],
        ready: Callable[[str | None, str | None], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._url = url
        self._shut_down = shut_down
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway_url: str | None = None
        self._grpc_address: str | None = None
        self._rpc: RpcServer | None = None
        uv = Path(uv_tool.find_uv_bin())
        self._store = SqlMetadataStore.open_sqlite(settings.metadata_path, clock)
        self._store.clear_leases()  # whoever held them is dead: the data directory is locked
        self._storage = MappedObjectStore(
            settings.objects_dir,
            clock,
            mappings=parse_mappings(settings.bucket_mappings),
            # Not by our own gateway, which would lead back here.
            service=Service(original_environment(os.environ)),
            unknown_buckets=settings.unknown_buckets,
        )
        self._catalogue = Catalogue.load(uv=uv)
        self._runtimes = RuntimeCache(settings.runtimes_dir, uv)
        self._warm = WarmPool(warm_limits(settings)) if settings.warm_pool else None
        self._containers = ContainerEngines(settings.container_engine)
        self._backend = LocalBackend(
            containers=self._containers, pool=self._warm, ended=lambda: self._reconciler.look()
        )
        self._reconciler = JobReconciler(
            self._store,
            self._storage,
            self._backend,
            settings,
            clock,
            engine_url=url,
            uv=uv,
            wiring=self._wiring,
            trial_moved=lambda: self._tuner.wake(),
        )
        self._policy = SearchPolicy()
        self._tuner = TuningReconciler(
            self._store, self._storage, self._policy, settings, clock, wake_jobs=self._reconciler.wake
        )
        containers = Containers(self._containers.find)
        directory = StoredVersions(self._store, self._catalogue, self._runtimes, settings.versions_dir, containers)
        directory.forget = self._forget
        self._models = RegisteredModels(directory, self._storage, settings.versions_dir)
        limits = Limits(
            predict_timeout_s=settings.predict_timeout_s,
            load_timeout_s=settings.version_create_timeout_s,
            idle_s=settings.server_idle_s,
            grace_s=settings.cancel_grace_s,
            memory_bytes=budget_bytes(settings.serving_memory),
        )
        self._pool = ServerPool(settings.server_logs_dir, limits, memory_bytes=limits.memory_bytes)
        self._directory = directory
        self._traffic = TrafficService(self._store, self._forget)
        self._uses = VersionUses(self._store, self._pool.groups, clock)
        self._recorder = RequestRecorder(
            self._storage,
            settings.requests_dir,
            settings.requests_bucket,
            clock,
            after_s=settings.requests_flush_s,
            hear=lambda: self._hearing.hear(),
        )
        self._logs = PredictionLogs(
            settings.server_logs_dir,
            self._pool.groups,
            self._pool.log_path,
            clock,
            hear=lambda: self._hearing.hear(),
        )
        self._hearing = Hearing(self._recorder.keep, self._logs.tell)
        self._predict = PredictApp(
            directory,
            self._pool,
            max_body_bytes=settings.max_body_bytes,
            record=self._recorder.record,
            log_access=self._logs.access,
            listen_to=self._hearing.listen_to,
            roll_back=self._roll_back_traffic,
        )
        self._rpc_server = _rpc_server() if settings.grpc_port >= 0 else None
        self._inference = Inference(self._predict, self._pool)
        self._deployer = Deployer(
            self._store,
            self._storage,
            self._catalogue,
            self._runtimes,
            self._pool,
            settings.versions_dir,
            clock,
            directory,
        )
        kept = KeptAnswers(self._storage)
        web = StorageHosts(self._storage, StorageApp(storage_routes(self._storage), self._web(), kept))
        self.app = Front(web, self._predict, kept, settings.token)

    def _web(self) -> ASGIApp:
        routes = [*self._engine_routes(), *self._ml_routes()]
        routes += ServingApi(self._traffic, self._schema, self._pool.describe, self._restart).routes()
        routes.append(Route("/metrics", self._metrics, methods=["GET"]))
        return Starlette(routes=routes, exception_handlers={HTTPException: on_http_exception})

    async def _metrics(self, _request: Request) -> Response:
        text = render(self._pool) + (self._rpc.metrics() if self._rpc is not None else "")
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    def _ml_routes(self) -> list[BaseRoute]:
        store, settings, clock = self._store, self._settings, self._clock
        validator = Validator(self._catalogue, self._storage, self._models, self._backend, store.get_job)
        jobs = JobService(
            store,
            validator,
            clock,
            wake=self._wake_jobs,
            position=self._reconciler.position,
            tuning_output=TuningOutputs(store).of,
        )
        registry = RegistryService(
            store,
            self._storage,
            self._catalogue,
            clock,
            wake=self._deployer.wake,
            forget=self._forget,
            retire=self._deployer.retire,
            rescale=self._deployer.rescale,
            find_container_engine=self._containers.find,
        )
        max_bytes = settings.max_body_bytes
        return [
            *ml_routes(
                MlApi(jobs, registry, max_bytes).handlers(),
                IamApi(PolicyService(store), max_bytes).handlers(),
                StudiesApi(StudyService(store, self._policy, clock), max_bytes).handlers(),
                place_handlers(),
            ),
            *discovery_routes(),
            *OpenInference(self._inference, settings.project, max_bytes).routes(),
            *LoggingApi(LogEntries(store, settings.jobs_dir, settings.server_logs_dir, clock), max_bytes).routes(),
            *AuthApi(settings.token or DEFAULT_TOKEN, settings.project).routes(),
        ]

    def _engine_routes(self) -> list[BaseRoute]:
        store, settings = self._store, self._settings
        return EngineApi(
            store=store,
            catalogue=self._catalogue,
            settings=settings,
            clock=self._clock,
            job_log=lambda name: job_log(store, settings.jobs_dir, name),
            shut_down=self._shut_down,
            url=self._url,
            gateway_url=lambda: self._gateway_url,
            grpc_address=lambda: self._grpc_address,
            hardware=self._reconciler.hardware,
            warm_pool=self._warm.describe if self._warm else list,
            flush_requests=self._recorder.flush,
            start_time_ns=self._clock.time_ns(),
        ).routes()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all parts, and stop them at the end.

        Raises:
            FailedPrecondition: the port for the gateway or for gRPC is taken.
        """
        self._loop = asyncio.get_running_loop()
        rpc = self._rpc = await self._start_rpc()
        gateway = await self._start_gateway()
        await self._pool.start()
        if self._warm:
            self._warm.start()
        self._reconciler.start()
        self._recorder.start()
        self._logs.start()
        self._uses.start()
        self._tuner.start()
        self._deployer.start(self._loop)
        self._ready(self._gateway_url, self._grpc_address)
        try:
            yield
        finally:
            if gateway is not None:
                await gateway.close()
            if rpc is not None:
                await rpc.close()
            await self._loop.run_in_executor(None, self._tuner.stop)
            await self._loop.run_in_executor(None, self._reconciler.stop)
            if self._warm:
                await self._loop.run_in_executor(None, self._warm.stop)
            await self._loop.run_in_executor(None, self._deployer.stop)
            await self._loop.run_in_executor(None, self._uses.stop)
            await self._pool.close()
            await self._loop.run_in_executor(None, self._recorder.stop)
            await self._loop.run_in_executor(None, self._logs.stop)
            self._storage.close()
            self._store.close()

    async def _start_gateway(self) -> GatewayServer | None:
        settings = self._settings
        if not settings.gateway:
            return None
        for port in _gateway_ports(settings):
            gateway = GatewayServer(
                self.app,
                at_once=self.app.at_once,
                host=settings.host,
                port=port,
                ca_dir=settings.gateway_dir,
                token=settings.token,
                clock=self._clock,
            )
            try:
                self._gateway_url = _url(settings.host, await gateway.start())
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return gateway
        raise FailedPrecondition(
            f"Can't listen on {settings.host}:{settings.gateway_port} for the gateway: the port is taken. Choose "
            "another with --gateway-port, or 0 for a free one."
        )

    async def _start_rpc(self) -> RpcServer | None:
        settings = self._settings
        if self._rpc_server is None:
            return None
        server = self._rpc_server(
            self._inference,
            token=settings.token,
            project=settings.project,
            max_request_bytes=settings.max_body_bytes,
        )
        port = await server.start(settings.host, settings.grpc_port)
        self._grpc_address = _url(settings.host, port).removeprefix("http://")
        return server

    def _wiring(self, project: str) -> Wiring | None:
        """How the training processes of a project reach the engine; None where there is no gateway."""
        if self._gateway_url is None:
            return None
        return prepare_client(
            self._settings, project, engine_url=self._url, gateway_url=self._gateway_url, fast_tensorflow=True
        )

    def _wake_jobs(self) -> None:
        self._reconciler.wake()
        self._tuner.wake()

    def _forget(self, project: str, model_id: str) -> None:
        # On the loop, after whatever the router is just looking up: it must not keep what is out of date.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._predict.forget, project, model_id)

    def _schema(self, name: VersionName) -> dict[str, Any]:
        schema: dict[str, Any] = self._store.get_version(name).request.get(SCHEMA, {})
        return schema

    async def _restart(self, name: VersionName) -> None:
        version = await asyncio.to_thread(self._directory.resolve, name.project, name.model_id, name.version_id)
        await self._pool.renew(version)

    def _roll_back_traffic(self, project: str, model_id: str, verdict: Verdict) -> None:
        assert self._loop is not None
        _log.warning("%s/%s: %s is taken back: %s", project, model_id, *verdict)
        self._loop.run_in_executor(None, self._traffic.roll_back, ModelName(project, model_id), verdict)


class Front:
    """The first look at a request: tokens for strangers, and short ways for predictions and kept answers."""

    def __init__(self, web: ASGIApp, predict: ASGIApp, kept: KeptAnswers, token: str) -> None:
        self._web = web
        self._predict = predict
        self._kept = kept
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

    def at_once(self, scope: Scope) -> Response | None:
        """What a request gets, if that is a kept answer of the storage API; see `BoundedProtocol.at_once`."""
        if (self._expected and not self._may_enter(scope)) or not is_for_json_api(scope):
            return None
        return self._kept.find(scope)

    def _may_enter(self, scope: Scope) -> bool:
        if scope.get("extensions", {}).get("enginehouse.gateway", {}).get("proxy_authenticated"):
            return True
        client = scope.get("client")
        if client is not None and client[0] in LOOPBACK_PEERS:
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
    _calm_garbage_collection()
    engine.run()


def _calm_garbage_collection() -> None:
    """Let the collector look at what is new, and less often: it stops all threads, and imports made most objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _listen(settings: Settings) -> socket.socket:
    """Bind the port; for port 0 the last one again if it is free, since running jobs know the engine by it."""
    wanted = settings.port
    last = _last_ports(settings)[0] if wanted == 0 else None
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


def _rpc_server() -> type[RpcServer]:
    """The server for gRPC, which is an extra."""
    try:
        from enginehouse.api.rpc.server import RpcServer
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"grpc_port needs the Python package {error.name}. Install it with: pip install 'enginehouse[grpc]'"
        ) from None
    return RpcServer


def _acquire(lock: FileLock) -> bool:
    """Take the data directory's lock. Who only looks whether it is held, holds it for a moment: try again."""
    for _ in range(_LOCK_ATTEMPTS):
        if lock.acquire(blocking=False):
            return True
        time.sleep(_LOCK_EVERY_S)
    return False


def _gateway_ports(settings: Settings) -> list[int]:
    """The ports to try for the gateway: the one that was given; else last time's, the one after the APIs', any."""
    if settings.gateway_port:
        return [settings.gateway_port]
    _port, last = _last_ports(settings)
    following = settings.port + 1 if settings.port else 0
    return [port for port in (last, following) if port] + [0]


def _last_ports(settings: Settings) -> tuple[int | None, int | None]:
    """The ports of the APIs and of the gateway when an engine was last on this data directory."""
    last = read_json(_last_ports_file(settings))
    return (last[0], last[1]) if isinstance(last, list) else (None, None)


def _last_ports_file(settings: Settings) -> Path:
    return settings.data_dir / "ports.json"


def _url(host: str, port: int) -> str:
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"


def _taken_message(settings: Settings) -> str:
    info = read_json(settings.engine_file) or {}
    who = f" (pid {info['pid']}, {info['url']})" if "pid" in info else ""
    return (
        f"An engine is running on {settings.data_dir} already{who}. Stop it with `mle down --data-dir "
        f"{settings.data_dir}`, or give this one another --data-dir."
    )
