"""Makes jobs go: one thread that looks at every unfinished job, does what is next and writes down what came of it.

Each step loads a job, acts outside of any transaction through the backend (launch, look, stop: all idempotent) and
applies the change under the engine's lease. A kill at any line is safe: the next pass starts from what is stored.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from enginehouse.backends.base import Backend, ReplicaStatus
from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.errors import Aborted, EngineError
from enginehouse.core.files import read_json
from enginehouse.core.names import JobName
from enginehouse.core.settings import Settings
from enginehouse.core.units import format_duration, parse_duration_s
from enginehouse.gateway.environment import Wiring
from enginehouse.jobs import lifecycle, queue
from enginehouse.jobs.admission import Admission, Devices, News
from enginehouse.jobs.capacity import capacity
from enginehouse.jobs.cluster import ports_needed
from enginehouse.jobs.group import MAX_RESTARTS, MAX_RETRIES, End, Launch, Restart, Retry, Wait, look
from enginehouse.jobs.launch import Launcher, host_notes
from enginehouse.jobs.plan import Plan, ReplicaPlan
from enginehouse.jobs.ports import Ports
from enginehouse.jobs.program import scheduling_of
from enginehouse.jobs.result import consumed_ml_units, prediction_output
from enginehouse.jobs.run import Ending, Run, replica_directory
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.holding import HeldLease
from enginehouse.metadata.records import JobRecord, NewEvent
from enginehouse.replica.spec import REPORT_FILE
from enginehouse.storage.base import ObjectStore

_log = logging.getLogger(__name__)

DEFAULT_MAX_RUNNING_TIME = "604800s"
_ACTIVE_POLL_S = 0.03
_IDLE_POLL_S = 1.0


class JobReconciler:
    """Drives all jobs of one engine.

    Args:
        wiring: project → how its replicas reach the engine; asked at each launch, None without a gateway.
        trial_moved: called after a pass in which the state of a trial was changed.
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
        trial_moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._trial_moved = trial_moved
        self._any_trial_moved = False
        self._ports = Ports()
        self._capacity = capacity(settings, backend.host())
        self._launcher = Launcher(
            storage, backend, settings, engine_url=engine_url, uv=uv, wiring=wiring, capacity=self._capacity
        )
        self._devices = Devices(self._capacity.gpus)
        self._admission = Admission(store, self._capacity, clock)
        self._lease = HeldLease(store, clock, "reconcilers/jobs")
        self._background = Background("jobs", self._pass, retry_s=_IDLE_POLL_S)
        self._adopt()

    def _adopt(self) -> None:
        """Keep what an engine before this one gave out."""
        for job in self._store.started_jobs():
            run = Run.from_json(job.run)
            self._ports.hold(port for ports in run.ports.values() for port in ports)
            self._devices.hold(job.name, run.devices)

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """End the loop; jobs go on."""
        self._background.stop()
        self._lease.release()

    def wake(self) -> None:
        """Something changed: look now instead of at the next tick."""
        self._admission.note_change()
        self._background.wake()

    def look(self) -> None:
        """A replica may have changed: look at the jobs that run now instead of at the next tick."""
        self._background.wake()

    def position(self, name: JobName) -> int:
        """A job's place in the queue, from 1; 0 when it does not wait."""
        return self._admission.position(name)

    def hardware(self) -> dict[str, Any]:
        """What jobs share, and which job has which GPU, for `mle status`."""
        return {
            "cpus": self._capacity.cpus,
            "limits": dict(self._capacity.amounts),
            "gpus": [
                {"id": gpu.id, "name": gpu.name, "memoryMib": gpu.memory_mib, "job": holder.job_id if holder else ""}
                for gpu, holder in self._devices.holders()
            ],
        }

    def _pass(self) -> float:
        return _ACTIVE_POLL_S if self.run_once() else _IDLE_POLL_S

    def run_once(self) -> bool:
        """One pass over all unfinished jobs.

        Returns:
            Whether some job is past the queue, so that the next look should come soon.
        """
        if not self._lease.hold():
            return False
        jobs = self._store.started_jobs()
        if self._admission.is_due():
            jobs = self._look_at_queue(jobs)
        for job in jobs:
            with self._tolerating(job.name):
                self._step(job)
        if self._any_trial_moved:  # told of at the end: what is to be launched goes before what others make of it
            self._any_trial_moved = False
            self._trial_moved()
        return bool(jobs)

    @contextlib.contextmanager
    def _tolerating(self, name: JobName) -> Iterator[None]:
        """One job's trouble is not the others': the next pass tries again."""
        try:
            yield
        except Aborted:
            _log.info("%s changed meanwhile; next pass", name)
        except Exception:
            _log.exception("%s: the step failed; trying again", name)

    # --- the queue ---

    def _look_at_queue(self, started: list[JobRecord]) -> list[JobRecord]:
        """Tell those who wait why, and those who must give way; all jobs that are past the queue now."""
        decisions = self._admission.decide(started)
        # These first: what is decided is written down before anything else changes.
        prepared: list[JobRecord] = []
        for name in decisions.start:
            with self._tolerating(name):
                prepared.append(self._prepare(self._store.get_job(name)))
                self._admission.left(name)
        for news in self._admission.news(decisions):
            self._tell(news)
        jobs = [
            self._give_way(_Group.of(job), decisions.give_way[job.name]) if job.name in decisions.give_way else job
            for job in started
        ]
        for name in self._admission.overdue():
            self._cancel_overdue(name)
        return prepared + jobs

    def _tell(self, news: News) -> None:
        """Why a job waits, for its owner; in its log, too, where that says more than that others go first."""
        name, reason, never = news
        severity = "WARNING" if never else "INFO"

        def change(job: JobRecord) -> tuple[JobRecord, list[NewEvent]] | None:
            if job.state != "QUEUED":
                return None
            is_first = job.waiting_reason in ("", queue.ITS_TURN) and reason != queue.ITS_TURN
            lines = [lifecycle.log(reason, severity=severity)] if never or is_first else []
            return replace(job, waiting_reason=reason), [NewEvent("decision", reason), *lines]

        self._store.change_job(name, change, lease=self._lease.current)
        self._admission.told(name, reason)

    def _give_way(self, group: _Group, reason: str) -> JobRecord:
        run = replace(group.run, again="requeue", reason=reason)
        return self._note(group, run, [lifecycle.log(reason, severity="WARNING")])

    def _cancel_overdue(self, name: JobName) -> None:
        job = self._store.get_job(name)
        limit = job.request["trainingInput"]["scheduling"]["maxWaitTime"]
        self._cancel(job, f"The job waited longer than maxWaitTime ({limit}) and was cancelled. {job.waiting_reason}")

    # --- one step of one job ---

    def _step(self, job: JobRecord) -> None:
        match job.state:
            case "PREPARING" | "RUNNING":
                self._follow(_Group.of(job))
            case "CANCELLING":
                self._finish_cancelling(_Group.of(job))

    def _prepare(self, job: JobRecord) -> JobRecord:
        """Take a job out of the queue."""
        group = _Group.of(job)
        plan = group.plan
        without_gpus = self._capacity.runs_without_gpus(job.name.project, plan)
        wanted = {each.task_name: 0 if without_gpus else each.gpus for each in plan.replicas}
        devices = self._devices.claim(job.name, wanted)
        if devices is None:  # another look at the queue was made of the same job
            raise Aborted(f"{job.name}: its GPUs are not free yet")
        ports = {each.task_name: self._ports.claim(ports_needed(each)) for each in plan.replicas}
        lines = [
            lifecycle.log(lifecycle.WAITING_FOR_PROVISIONING),
            NewEvent("decision", plan.runtime_reason, data={"runtimeVersion": plan.runtime_version}),
            *(lifecycle.log(text) for text in host_notes(plan, self._capacity.cpus, without_gpus=without_gpus)),
            lifecycle.log(lifecycle.WAITING_FOR_PROGRAM),
        ]
        run = replace(group.run, ports=ports, devices=devices)
        job = self._move(job, "PREPARING", reason="admitted", logs=lines, run=run.to_json())
        if job.state != "PREPARING":  # cancelled meanwhile
            self._release(replace(group, run=run))
        return job

    def _follow(self, group: _Group) -> None:
        job, run = group.job, group.run
        if run.ending is not None:
            if self._wind_down(group, "The job is over."):
                self._finish(group, run.ending)
            return
        if run.again:
            if self._wind_down(group, run.reason):
                self._begin_anew(group)
            return
        verdict = look(job.name.job_id, group.plan, run, self._statuses(group))
        match verdict:
            case Launch(replicas):
                self._launch(group, replicas)
            case Restart(replicas, reasons):
                self._restart(group, replicas, reasons)
            case Retry(reason):
                self._retry(group, reason)
            case End(result, ended_ns):
                self._end(group, Ending(result.state, result.error_message, ended_ns))
            case Wait(running_since_ns):
                if running_since_ns is not None and job.state == "PREPARING":
                    job = self._mark_running(job, running_since_ns)
                if job.state == "RUNNING":
                    self._check_running_time(job)

    def _statuses(self, group: _Group) -> dict[str, ReplicaStatus]:
        return {each.task_name: self._backend.status(self._directory(group, each)) for each in group.plan.replicas}

    def _directory(self, group: _Group, replica: ReplicaPlan) -> Path:
        launch = group.run.launches.get(replica.task_name, 0)
        return replica_directory(self._settings.jobs_dir, group.job.name, replica.task_name, launch)

    def _mark_running(self, job: JobRecord, since_ns: int) -> JobRecord:
        return self._move(
            job,
            "RUNNING",
            reason="all replicas are available",
            logs=[lifecycle.log(lifecycle.RUNNING)],
            start_time_ns=job.start_time_ns or max(since_ns, job.create_time_ns),
        )

    def _check_running_time(self, job: JobRecord) -> None:
        scheduling = scheduling_of(job)
        limit_s = parse_duration_s(scheduling.get("maxRunningTime") or DEFAULT_MAX_RUNNING_TIME)
        if job.start_time_ns is not None and self._clock.time_ns() - job.start_time_ns > limit_s * 1e9:
            limit = format_duration(limit_s)
            self._cancel(job, f"The job ran longer than maxRunningTime ({limit}) and was cancelled.")

    def _launch(self, group: _Group, replicas: tuple[ReplicaPlan, ...]) -> None:
        directories = [self._directory(group, each) for each in replicas]
        try:
            self._launcher.launch(group.job, group.plan, group.run, list(zip(replicas, directories, strict=True)))
        except EngineError as error:
            self._end(group, Ending("FAILED", error.message, self._clock.time_ns()))

    def _restart(self, group: _Group, replicas: tuple[ReplicaPlan, ...], reasons: tuple[str, ...]) -> None:
        run, lines = group.run, []
        for replica, reason in zip(replicas, reasons, strict=True):
            self._backend.reap(self._directory(group, replica))
            run = run.restarted(replica.task_name)
            count = run.restarts[replica.task_name]
            lines.append(lifecycle.log(f"{reason} It is restarted ({count} of {MAX_RESTARTS}).", severity="WARNING"))
        self._note(group, run, lines)

    def _retry(self, group: _Group, reason: str) -> None:
        text = f"{reason} The whole job is begun anew ({group.run.retries + 1} of {MAX_RETRIES})."
        run = replace(group.run, again="retry", reason=text)
        self._note(group, run, [lifecycle.log(text, severity="WARNING")])

    def _begin_anew(self, group: _Group) -> None:
        master = self._backend.status(self._directory(group, group.plan.replicas[0])).outcome
        if master is not None and master.succeeded:  # before it was asked to stop
            self._finish(group, Ending("SUCCEEDED", "", master.ended_ns))
            return
        run = group.run.begun_anew(tuple(each.task_name for each in group.plan.replicas))
        if group.run.again == "retry":
            self._note(group, run, [])
            return
        self._release(group)
        self._move(
            group.job,
            "QUEUED",
            reason=group.run.reason,
            logs=[lifecycle.log(lifecycle.queued_line(group.job.name.job_id))],
            run=run.to_json(),
        )

    # --- ends ---

    def _end(self, group: _Group, ending: Ending) -> None:
        """The job is decided: finish it now if no replica is left, else stop what is left first."""
        if self._wind_down(group, "The job is over.", only_look=True):
            self._finish(group, ending)
        else:
            self._note(group, replace(group.run, ending=ending), [])

    def _wind_down(self, group: _Group, reason: str, *, only_look: bool = False) -> bool:
        """Stop every replica that has not ended. Whether none is left; then nothing of them is."""
        directories = [self._directory(group, each) for each in group.plan.replicas]
        begun = [directory for directory in directories if directory.exists()]
        if not only_look:
            for directory in begun:
                if self._backend.status(directory).outcome is None:
                    self._backend.stop(directory, reason=reason, grace_s=self._settings.cancel_grace_s)
        if any(self._backend.status(directory).outcome is None for directory in begun):
            return False
        for directory in begun:
            self._backend.reap(directory)
        return True

    def _finish(self, group: _Group, ending: Ending) -> None:
        job = group.job
        lines = [lifecycle.log(lifecycle.TEARING_DOWN)]
        if ending.state == "SUCCEEDED":
            lines.append(lifecycle.log(lifecycle.COMPLETED))
        else:
            lines.append(lifecycle.log(ending.error_message, severity="ERROR"))
        if job.state == "PREPARING" and ending.state == "SUCCEEDED":
            job = self._mark_running(job, ending.ended_ns)
        self._move(
            job,
            ending.state,
            reason=ending.error_message or "the master exited with 0",
            logs=lines,
            error_message=ending.error_message,
            output=self._output(job, group, ending.ended_ns),
        )
        self._release(group)

    def _cancel(self, job: JobRecord, reason: str) -> None:
        self._move(
            job,
            "CANCELLING",
            reason=reason,
            logs=[lifecycle.log(reason, severity="WARNING"), lifecycle.log(lifecycle.CANCELLING)],
            stop_reason=reason,
        )

    def _finish_cancelling(self, group: _Group) -> None:
        job = group.job
        if not self._wind_down(group, job.stop_reason):
            return
        ended = [status.outcome.ended_ns for status in self._statuses(group).values() if status.outcome]
        self._move(
            job,
            "CANCELLED",
            reason=job.stop_reason,
            logs=[lifecycle.log(lifecycle.CANCELLED)],
            error_message=job.stop_reason,
            output=self._output(job, group, max(ended, default=self._clock.time_ns())),
        )
        self._release(group)

    def _output(self, job: JobRecord, group: _Group, ended_ns: int) -> dict[str, Any]:
        if group.plan.model is not None:
            report = read_json(self._directory(group, group.plan.replicas[0]) / REPORT_FILE) or {}
            return prediction_output(job, report, ended_ns)
        return {"consumedMLUnits": consumed_ml_units(group.plan.ml_units, job.start_time_ns, ended_ns)}

    def _release(self, group: _Group) -> None:
        self._ports.release(port for ports in group.run.ports.values() for port in ports)
        self._devices.release(group.job.name)
        self._admission.note_change()

    # --- writing ---

    def _note(self, group: _Group, run: Run, logs: list[NewEvent]) -> JobRecord:
        """Store how the job is being run, unless it has left the state that it was judged in."""
        return self._store.change_job(
            group.job.name,
            lambda job: (replace(job, run=run.to_json()), logs) if job.state == group.job.state else None,
            lease=self._lease.current,
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

        moved = self._store.change_job(job.name, change, lease=self._lease.current)
        self._any_trial_moved |= bool(job.name.trial_id)
        return moved


@dataclass(frozen=True)
class _Group:
    """A job with its plan and its run, as they were when the step began."""

    job: JobRecord
    plan: Plan
    run: Run

    @classmethod
    def of(cls, job: JobRecord) -> _Group:
        return cls(job, Plan.from_json(job.plan), Run.from_json(job.run))
