"""Carries out the operations that take time: a version is copied, loaded and test-called before it is READY.

One thread takes operations in order and hands each to a small pool. Every step may be repeated: after a kill the
operation is simply begun again from what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.errors import EngineError, FailedPrecondition, Internal, NotFound
from enginehouse.core.names import ObjectUri, OperationName, VersionName
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import NewEvent, OperationRecord, VersionRecord
from enginehouse.registry.artifacts import directory_prefix
from enginehouse.registry.directory import OVERLAY_LINK, StoredVersions
from enginehouse.registry.messages import SCHEMA, response_of, version_message
from enginehouse.replica.container import bring_image
from enginehouse.replica.environment import EnvironmentFailedError
from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.runtimes.errors import RuntimesError
from enginehouse.serving.scaling import Scaling
from enginehouse.serving.types import DeployReport, ModelLoadError, ServedVersion
from enginehouse.storage.base import ObjectStore

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_WORKERS = 2


class Servers(Protocol):
    """What the deployer needs of `serving.pool.ServerPool`; both are awaited on the engine's event loop."""

    async def deploy(self, version: ServedVersion) -> DeployReport:
        """Load a version and call it once. Raises ModelLoadError."""
        ...

    async def retire(self, uid: str) -> None:
        """Stop what serves the version, if anything does."""
        ...

    async def rescale(self, version: ServedVersion) -> None:
        """A version's scaling is another now, or an engine has just started: keep the nodes that it asks for."""
        ...


class Deployer:
    """Makes versions ready. Started once per engine."""

    def __init__(
        self,
        store: MetadataStore,
        storage: ObjectStore,
        catalogue: Catalogue,
        runtimes: RuntimeCache,
        pool: Servers,
        versions_dir: Path,
        clock: Clock,
        directory: StoredVersions,
    ) -> None:
        self._store = store
        self._storage = storage
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._pool = pool
        self._versions_dir = versions_dir
        self._clock = clock
        self._directory = directory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._under_way: set[OperationName] = set()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="deploy")
        self._background = Background("deployer", self._pass, retry_s=_POLL_S)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sweep()
        for version in self._store.versions_in_state("READY"):
            if Scaling.of(version.request).min_nodes:
                self.rescale(version)
        self._background.start()

    def stop(self) -> None:
        """End the loop; operations under way are begun again by the next engine."""
        self._background.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """There is a new operation."""
        self._background.wake()

    def retire(self, uid: str) -> None:
        """Stop the servers of a version that is gone and remove its files."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._pool.retire(uid), self._loop)
        self._remove_files(uid)

    def rescale(self, version: VersionRecord) -> None:
        """Let the version have the nodes that it asks for, from now on."""
        if self._loop is None:
            return
        try:
            served = self._directory.served(version)
        except EngineError as error:
            _log.warning("%s keeps no node: %s", version.name, error.message)
            return
        asyncio.run_coroutine_threadsafe(self._pool.rescale(served), self._loop)

    def _remove_files(self, uid: str) -> None:
        for folder in (self._versions_dir / uid, self._versions_dir / f"{uid}.packages"):
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the files of versions that a kill left behind."""
        if not self._versions_dir.is_dir():
            return
        known = {version.uid for state in ("READY", "CREATING") for version in self._store.versions_in_state(state)}
        for folder in self._versions_dir.iterdir():
            if folder.name.partition(".")[0] not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def _pass(self) -> float:
        """Hand new operations to the workers; the seconds until the next look."""
        for operation in self._store.pending_operations():
            if operation.name not in self._under_way:
                self._under_way.add(operation.name)
                self._workers.submit(self._carry_out, operation)
        return _POLL_S

    def _carry_out(self, operation: OperationRecord) -> None:
        try:
            self._create_version(operation)
        except Exception:
            _log.exception("%s failed; trying again", operation.name)
        finally:
            self._under_way.discard(operation.name)

    def _create_version(self, operation: OperationRecord) -> None:
        name = VersionName(operation.model.project, operation.model.model_id, operation.version_id)
        try:
            version = self._store.get_version(name)
        except NotFound as error:
            self._store.put_operation(self._ended(operation, error=error))
            return
        started = replace(operation, start_time_ns=operation.start_time_ns or self._clock.time_ns())
        self._store.put_operation(started)
        try:
            self._copy_artifacts(version)
            report = self._load_and_test(version)
        except Exception as error:
            if self._background.is_stopping:
                return
            if not isinstance(error, EngineError):
                _log.exception("%s failed", operation.name)
                error = Internal(f"Create Version failed. {type(error).__name__}: {error}")
            self._fail(version, started, error)
        else:
            self._succeed(version, started, report)
        self._directory.forget(name.project, name.model_id)

    def _copy_artifacts(self, version: VersionRecord) -> None:
        """Copy the files, so that later changes in the bucket have no effect."""
        target = self._versions_dir / version.uid
        if target.is_dir():
            return
        for place, uri in zip(self._packages(version), version.request.get("packageUris", ()), strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            package = ObjectUri.parse(uri)
            _info, source = self._storage.open_read(package.bucket, package.name)
            with source, place.open("wb") as copy:
                shutil.copyfileobj(source, copy)
        partial = self._versions_dir / f".{version.uid}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if "deploymentUri" not in version.request:  # of a container, whose files are in its image
            partial.rename(target)
            return
        uri = ObjectUri.parse(version.request["deploymentUri"])
        # Copies, no links: what a model does to its files must not reach the bucket.
        if not self._storage.export(uri.bucket, directory_prefix(uri), partial, link=False):
            raise FailedPrecondition(f"The files below {uri} are gone.", field="version.deployment_uri")
        if "container" in version.request:
            for path in [partial, *partial.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)  # for the container's user, whoever that is
        partial.rename(target)

    def _load_and_test(self, version: VersionRecord) -> DeployReport:
        assert self._loop is not None
        served = self._bring_image(version) if "container" in version.request else self._prepare_runtime(version)
        future = asyncio.run_coroutine_threadsafe(self._pool.deploy(served), self._loop)
        return future.result()

    def _bring_image(self, version: VersionRecord) -> ServedVersion:
        served = self._directory.served(version)
        assert served.container is not None
        try:
            bring_image(
                served.container.engine(),
                served.container.image,
                lambda line: _log.info("%s: %s", version.name, line),
            )
        except EnvironmentFailedError as error:
            raise FailedPrecondition(str(error), field="version.container.image") from None
        return served

    def _prepare_runtime(self, version: VersionRecord) -> ServedVersion:
        resolution = self._directory.resolution(version)
        try:
            environment = self._runtimes.ensure(resolution, lambda line: _log.info("%s: %s", version.name, line))
        except RuntimesError as error:
            raise FailedPrecondition(f"The runtime {resolution.runtime.name} can't be built: {error}") from None
        self._install_packages(version, environment)
        return self._directory.served(version)

    def _packages(self, version: VersionRecord) -> list[Path]:
        """Where the copies of the version's packages lie, in their order."""
        folder = self._directory.packages_dir(version)
        uris = version.request.get("packageUris", ())
        return [folder / str(index) / uri.rpartition("/")[2] for index, uri in enumerate(uris)]

    def _install_packages(self, version: VersionRecord, environment: Environment) -> None:
        packages = self._packages(version)
        if not packages:
            return
        try:
            overlay = self._runtimes.ensure_overlay(environment, packages, lambda line: _log.info("%s", line))
        except RuntimesError as error:
            names = ", ".join(path.name for path in packages)
            raise ModelLoadError(
                f"Failed to load model: User-provided package {names} failed to install: {error} (Error code: 0)"
            ) from None
        link = self._directory.packages_dir(version) / OVERLAY_LINK
        link.unlink(missing_ok=True)
        link.symlink_to(overlay)

    def _succeed(self, version: VersionRecord, operation: OperationRecord, report: DeployReport) -> None:
        ready = replace(version, state="READY", revision=version.revision + 1)
        default_id = self._store.get_model(version.name.model).default_version_id
        message = version_message(ready, is_default=version.name.version_id == default_id)
        ended = replace(operation, end_time_ns=self._clock.time_ns(), response=response_of(message))
        self._store.change_version(
            version.name,
            lambda old: (
                replace(old, state="READY", error_message="", request={**old.request, SCHEMA: report.signatures}),
                [NewEvent("state", f"loaded in {report.load_s:.1f} s; test call {report.self_test}")],
            ),
            operation=ended,
        )

    def _fail(self, version: VersionRecord, operation: OperationRecord, error: EngineError) -> None:
        if isinstance(error, ModelLoadError):
            error = FailedPrecondition(error.creation_message)
        self._remove_files(version.uid)
        self._store.change_version(
            version.name,
            lambda old: (
                replace(old, state="FAILED", error_message=error.message),
                [NewEvent("state", error.message, severity="ERROR")],
            ),
            operation=self._ended(operation, error=error),
        )

    def _ended(self, operation: OperationRecord, *, error: EngineError) -> OperationRecord:
        return replace(operation, end_time_ns=self._clock.time_ns(), error=error.to_rpc_status())
