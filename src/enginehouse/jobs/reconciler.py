"""Makes jobs go: one thread that looks at every unfinished job, does what is next and writes down what came of it.

Each step loads a job, acts outside of any transaction through the backend (launch, look, stop: all idempotent) and
applies the change under the engine's lease. A kill at any line is safe: the next pass starts from what is stored.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from enginehouse.backends.base import Backend, Phase
from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.errors import Aborted, EngineError
from enginehouse.core.names import JobName, ObjectUri
from enginehouse.core.settings import Settings
from enginehouse.core.units import format_duration, parse_duration_s
from enginehouse.gateway.environment import Wiring
from enginehouse.jobs import lifecycle, queue
from enginehouse.jobs.environment import training_environment
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.result import Result, consumed_ml_units, judge
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord, Lease, NewEvent
from enginehouse.replica.spec import Outcome, PackageFile, ReplicaSpec
from enginehouse.storage.base import ObjectStore

_log = logging.getLogger(__name__)

DEFAULT_MAX_RUNNING_TIME = "604800s"
_ACTIVE_POLL_S = 0.03
_IDLE_POLL_S = 1.0
_LEASE_S = 30.0
_LEASE_NAME = "reconcilers/jobs"


def replica_directory(jobs_dir: Path, name: JobName, task_name: str) -> Path:
    """Where a replica's files lie; the one place that knows."""
    return jobs_dir / name.project / name.job_id / task_name


class JobReconciler:
    """Drives all jobs of one engine.

    Args:
        wiring: project → how its replicas reach the engine; asked at each launch, None without a gateway.
    """

    def __init__(
        self,
        store: MetadataStore,
        storage: ObjectStore,
        backend: Backend,
        settings: Settings,
        clock: Clock,
        *,
        engine_url: str,
        uv: Path,
        wiring: Callable[[str], Wiring | None] = lambda _project: None,
    ) -> None:
        self._store = store
        self._storage = storage
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._engine_url = engine_url
        self._wiring = wiring
        self._uv = uv
        self._lease: Lease | None = None
        self._background = Background("jobs", self._pass, retry_s=_IDLE_POLL_S)

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """End the loop; jobs go on."""
        self._background.stop()
        if self._lease is not None:
            self._store.release_lease(self._lease)

    def wake(self) -> None:
        """Something changed: look now instead of at the next tick."""
        self._background.wake()

    def _pass(self) -> float:
        return _ACTIVE_POLL_S if self.run_once() else _IDLE_POLL_S

    def run_once(self) -> bool:
        """One pass over all unfinished jobs.

        Returns:
            Whether some job is past the queue, so that the next look should come soon.
        """
        if not self._hold_lease():
            return False
        active = self._store.active_jobs()
        if not active:
            return False
        admitted = self._admit(active)
        busy = False
        for job in active:
            if job.state == "QUEUED" and job.name not in admitted:
                self._check_wait_time(job)
                continue
            busy = True
            try:
                self._step(job)
            except Aborted:
                _log.info("%s changed meanwhile; next pass", job.name)
            except Exception:
                _log.exception("%s: the step failed; trying again", job.name)
        return busy

    def _hold_lease(self) -> bool:
        now_ns = self._clock.time_ns()
        if self._lease is not None and self._lease.expires_ns - now_ns > _LEASE_S / 2 * 1e9:
            return True
        if self._lease is not None:
            self._store.release_lease(self._lease)
        self._lease = self._store.acquire_lease(_LEASE_NAME, duration_s=_LEASE_S)
        return self._lease is not None

    # --- the queue ---

    def _admit(self, active: list[JobRecord]) -> set[JobName]:
        decisions = queue.decide(active, max_running_jobs=self._settings.max_running_jobs)
        for decision in decisions:
            if not decision.admitted and decision.job.waiting_reason != decision.reason:
                event = NewEvent("decision", decision.reason, data={"position": decision.position})
                self._store.change_job(
                    decision.job.name,
                    lambda job, d=decision, e=event: (  # type: ignore[misc]
                        (replace(job, waiting_reason=d.reason), [e]) if job.state == "QUEUED" else None
                    ),
                    lease=self._lease,
                )
        return {decision.job.name for decision in decisions if decision.admitted}

    def _check_wait_time(self, job: JobRecord) -> None:
        limit = job.request["trainingInput"].get("scheduling", {}).get("maxWaitTime")
        if limit and self._clock.time_ns() - job.create_time_ns > parse_duration_s(limit) * 1e9:
            self._cancel(job, f"The job waited longer than maxWaitTime ({limit}) and was cancelled.")

    # --- one step of one job ---

    def _step(self, job: JobRecord) -> None:
        match job.state:
            case "QUEUED":
                self._prepare(job)
            case "PREPARING" | "RUNNING":
                self._follow(job)
            case "CANCELLING":
                self._finish_cancelling(job)

    def _prepare(self, job: JobRecord) -> None:
        plan = Plan.from_json(job.plan)
        lines = [
            lifecycle.log(lifecycle.WAITING_FOR_PROVISIONING),
            NewEvent("decision", plan.runtime_reason, data={"runtimeVersion": plan.runtime_version}),
            lifecycle.log(lifecycle.WAITING_FOR_PROGRAM),
        ]
        job = self._move(job, "PREPARING", reason="admitted", logs=lines)
        if job.state == "PREPARING":
            self._follow(job)

    def _follow(self, job: JobRecord) -> None:
        plan = Plan.from_json(job.plan)
        master = plan.replicas[0]
        directory = replica_directory(self._settings.jobs_dir, job.name, master.task_name)
        status = self._backend.status(directory)
        if status.phase is Phase.ABSENT:
            self._launch(job, plan, master, directory)
            return
        if status.running_since_ns is not None and job.state == "PREPARING":
            job = self._mark_running(job, status.running_since_ns)
        if status.outcome is not None:
            self._backend.reap(directory)
            self._finish(job, judge(job.name.job_id, master, status.outcome), status.outcome.ended_ns)
        elif job.state == "RUNNING":
            self._check_running_time(job)

    def _mark_running(self, job: JobRecord, since_ns: int) -> JobRecord:
        return self._move(
            job,
            "RUNNING",
            reason="all replicas are available",
            logs=[lifecycle.log(lifecycle.RUNNING)],
            start_time_ns=max(since_ns, job.create_time_ns),
        )

    def _check_running_time(self, job: JobRecord) -> None:
        scheduling = job.request["trainingInput"].get("scheduling", {})
        limit_s = parse_duration_s(scheduling.get("maxRunningTime") or DEFAULT_MAX_RUNNING_TIME)
        if job.start_time_ns is not None and self._clock.time_ns() - job.start_time_ns > limit_s * 1e9:
            limit = format_duration(limit_s)
            self._cancel(job, f"The job ran longer than maxRunningTime ({limit}) and was cancelled.")

    def _launch(self, job: JobRecord, plan: Plan, replica: ReplicaPlan, directory: Path) -> None:
        try:
            packages = self._stage_packages(job, directory)
        except EngineError as error:
            self._finish(job, Result("FAILED", error.message), self._clock.time_ns())
            return
        training_input = job.request["trainingInput"]
        environment = training_environment(
            project=job.name.project,
            job_id=job.name.job_id,
            cluster={plan.chief_name: [f"127.0.0.1:{_free_port()}"]},
            task_type=plan.chief_name,
            task_index=replica.index,
            training_input=training_input,
            engine_url=self._engine_url,
            wiring=self._wiring(job.name.project),
            host_environment=os.environ,
        )
        spec = ReplicaSpec(
            task_name=replica.task_name,
            module=training_input["pythonModule"],
            args=tuple(training_input.get("args", ())),
            job_dir=training_input.get("jobDir") or None,
            environment=environment,
            packages=tuple(packages),
            runtime_version=plan.runtime_version,
            python_version=plan.python_version,
            runtimes_dir=str(self._settings.runtimes_dir),
            uv=str(self._uv),
            grace_s=self._settings.cancel_grace_s,
        )
        self._backend.launch(directory, spec)

    def _stage_packages(self, job: JobRecord, directory: Path) -> list[PackageFile]:
        """Bring the packages beside the replica, so that it needs no engine to install them."""
        staged = []
        for index, uri_text in enumerate(job.request["trainingInput"]["packageUris"]):
            uri = ObjectUri.parse(uri_text)
            target = directory / "packages" / str(index) / uri.name.rpartition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            _info, source = self._storage.open_read(uri.bucket, uri.name)
            with source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            staged.append(PackageFile(uri=uri_text, path=str(target)))
        return staged

    # --- ends ---

    def _finish(self, job: JobRecord, result: Result, ended_ns: int) -> None:
        lines = [lifecycle.log(lifecycle.TEARING_DOWN)]
        if result.state == "SUCCEEDED":
            lines.append(lifecycle.log(lifecycle.COMPLETED))
        else:
            lines.append(lifecycle.log(result.error_message, severity="ERROR"))
        if job.state == "PREPARING" and result.state == "SUCCEEDED":
            job = self._mark_running(job, ended_ns)
        self._move(
            job,
            result.state,
            reason=result.error_message or "the master exited with 0",
            logs=lines,
            error_message=result.error_message,
            output={"consumedMLUnits": consumed_ml_units(job.start_time_ns, ended_ns)},
        )

    def _cancel(self, job: JobRecord, reason: str) -> None:
        self._move(
            job,
            "CANCELLING",
            reason=reason,
            logs=[lifecycle.log(reason, severity="WARNING"), lifecycle.log(lifecycle.CANCELLING)],
            stop_reason=reason,
        )

    def _finish_cancelling(self, job: JobRecord) -> None:
        master = Plan.from_json(job.plan).replicas[0]
        directory = replica_directory(self._settings.jobs_dir, job.name, master.task_name)
        outcome: Outcome | None = None
        if directory.exists():  # else it was never launched
            self._backend.stop(directory, reason=job.stop_reason, grace_s=self._settings.cancel_grace_s)
            outcome = self._backend.status(directory).outcome
            if outcome is None:
                return
            self._backend.reap(directory)
        ended_ns = outcome.ended_ns if outcome else self._clock.time_ns()
        self._move(
            job,
            "CANCELLED",
            reason=job.stop_reason,
            logs=[lifecycle.log(lifecycle.CANCELLED)],
            error_message=job.stop_reason,
            output={"consumedMLUnits": consumed_ml_units(job.start_time_ns, ended_ns)},
        )

    def _move(
        self,
        job: JobRecord,
        to: str,
        *,
        reason: str,
        logs: list[NewEvent],
        **fields: object,
    ) -> JobRecord:
        """Apply a transition, unless the job has left the state that it was judged in."""

        def change(current: JobRecord) -> tuple[JobRecord, list[NewEvent]] | None:
            if current.state != job.state:
                return None
            moved = replace(current, **fields)  # type: ignore[arg-type]
            return lifecycle.transition(
                moved,
                to,  # type: ignore[arg-type]
                reason=reason,
                now_ns=self._clock.time_ns(),
                logs=logs,
            )

        return self._store.change_job(job.name, change, lease=self._lease)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
