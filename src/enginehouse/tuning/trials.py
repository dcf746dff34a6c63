"""Makes tuning jobs go: one thread that asks the study of each for trials and has them run as jobs of their own.

Each step starts from what is stored and may be repeated: a trial is in the study before its job is made, a job is
made under the trial's number, a trial ends in its study before the tuning job's log tells of it. So a kill at any
line loses no measurement and no suggestion, and repeats none. The trials themselves are run by `jobs.reconciler`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from enginehouse.core.background import Background
from enginehouse.core.clock import Clock
from enginehouse.core.errors import Aborted, InvalidArgument, NotFound
from enginehouse.core.ids import new_id
from enginehouse.core.settings import Settings
from enginehouse.core.units import format_duration, parse_duration_s
from enginehouse.jobs import lifecycle
from enginehouse.jobs.hyperparameters import max_parallel_trials, max_trials
from enginehouse.jobs.program import scheduling_of
from enginehouse.jobs.reconciler import DEFAULT_MAX_RUNNING_TIME
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.holding import HeldLease
from enginehouse.metadata.records import JobRecord, NewEvent, StudyChange, StudyRecord, TrialRecord
from enginehouse.schemas.ml_v1 import JobState
from enginehouse.schemas.wire import to_builtins
from enginehouse.storage.base import ObjectStore
from enginehouse.tuning import study as studies
from enginehouse.tuning.failures import why_failed
from enginehouse.tuning.job_output import TuningOutputs
from enginehouse.tuning.job_study import OWN, PREVIOUS, config_of, spec_of, study_name, texts_of
from enginehouse.tuning.policy import Policy
from enginehouse.tuning.progress import Progress
from enginehouse.tuning.telling import end_line, unread_warnings
from enginehouse.tuning.trial_jobs import trial_job_name
from enginehouse.tuning.trial_steps import TrialSteps
from enginehouse.tuning.tuned_job import Memory, ProgressWriter, TunedJob

_log = logging.getLogger(__name__)

OBJECTIVES = ("last", "best")
_ACTIVE_POLL_S = 0.5
_IDLE_POLL_S = 5.0


class TuningReconciler:
    """Drives all tuning jobs of one engine.

    Args:
        wake_jobs: called when there is a trial to start or to stop.

    Raises:
        InvalidArgument: the setting tuning_objective is none of `OBJECTIVES`.
    """

    def __init__(
        self,
        store: MetadataStore,
        storage: ObjectStore,
        policy: Policy,
        settings: Settings,
        clock: Clock,
        *,
        wake_jobs: Callable[[], None],
    ) -> None:
        if settings.tuning_objective not in OBJECTIVES:
            raise InvalidArgument(
                f"{settings.tuning_objective!r} is none of {', '.join(OBJECTIVES)}.", field="tuning_objective"
            )
        self._store = store
        self._policy = policy
        self._clock = clock
        self._wake_jobs = wake_jobs
        self._outputs = TuningOutputs(store)
        self._memories: dict[str, Memory] = {}
        self._lease = HeldLease(store, clock, "reconcilers/tuning")
        self._progress = ProgressWriter(store, lambda: self._lease.current)
        self._steps = TrialSteps(
            store, storage, policy, settings, clock, lease=lambda: self._lease.current, wake_jobs=wake_jobs
        )
        self._background = Background("tuning", self._pass, retry_s=_IDLE_POLL_S)

    def start(self) -> None:
        self._background.start()

    def stop(self) -> None:
        """End the loop; trials go on."""
        self._background.stop()
        self._lease.release()

    def wake(self) -> None:
        """Something changed: look now instead of at the next tick."""
        self._background.wake()

    def _pass(self) -> float:
        return _ACTIVE_POLL_S if self.run_once() else _IDLE_POLL_S

    def run_once(self) -> bool:
        """One pass over all unfinished tuning jobs; whether there are any."""
        if not self._lease.hold():
            return True  # soon again: the one that held it may be gone
        jobs = self._store.tuning_jobs()
        self._memories = {str(job.name): self._memories.get(str(job.name)) or Memory() for job in jobs}
        for job in jobs:
            try:
                self._step(self._load(job, self._memories[str(job.name)]))
            except Aborted:
                _log.info("%s changed meanwhile; next pass", job.name)
            except Exception:
                self._memories[str(job.name)] = Memory()
                _log.exception("%s: the step failed; trying again", job.name)
        return bool(jobs)

    # --- the study ---

    def _load(self, job: JobRecord, memory: Memory) -> TunedJob:
        spec = spec_of(job)
        study = self._study(job)
        unfinished = self._store.list_trials(study.name, unfinished=True)
        if len(memory.completed) + len(unfinished) != study.next_trial_id - 1:
            trials = self._store.list_trials(study.name)
            memory.completed = {each.name.trial_id: each for each in trials if each.state == "COMPLETED"}
        else:
            trials = sorted([*memory.completed.values(), *unfinished], key=lambda trial: trial.name)
        return TunedJob(job, spec, Progress.from_json(job.run), study, trials, memory)

    def _study(self, job: JobRecord) -> StudyRecord:
        """The job's study, made where it is not there yet, with the job's ranges as they are now."""
        spec, name = spec_of(job), study_name(job.name)
        config = to_builtins(config_of(spec))
        try:
            study = self._store.get_study(name)
        except NotFound:
            # Not active before the trials of the job that it resumes are in it.
            study = StudyRecord(name, config, self._clock.time_ns(), seed=int(new_id(8), 16), state="INACTIVE")
            self._store.create_study(study)
        if study.state == "INACTIVE":
            taken = self._trials_before(job, spec.resume_previous_job_id) if spec.resume_previous_job_id else []
            next_id = max((each.name.trial_id for each in taken), default=0) + 1
            activated = StudyChange(replace(study, state="ACTIVE", next_trial_id=next_id), taken)
            study = self._store.change_study(name, lambda _study, _trials: activated).study
        if study.config != config:
            widened = replace(study, config=config, state="ACTIVE", inactive_reason="")
            study = self._store.change_study(name, lambda _study, _trials: StudyChange(widened)).study
        return study

    def _trials_before(self, job: JobRecord, previous_id: str) -> list[TrialRecord]:
        previous = study_name(replace(job.name, job_id=previous_id))
        return [
            replace(each, name=study_name(job.name).trial(each.name.trial_id), client_id=PREVIOUS)
            for each in self._store.list_trials(previous)
            if each.state == "COMPLETED"
        ]

    # --- one step of one job ---

    def _step(self, tuned: TunedJob) -> None:
        for trial in tuned.open:
            tuned = self._steps.bring_forward(tuned, trial)
        if self._goes_on(tuned):
            known, tuned = len(tuned.trials), self._suggest(tuned)
            if len(tuned.trials) > known:
                return  # a free place waits for it, so all else can wait until it is launched
        tuned = self._tell_of_ends(tuned)
        if tuned.job.state == "CANCELLING":
            if self._wind_down(tuned, tuned.job.stop_reason):
                self._finish(tuned, "CANCELLED", tuned.job.stop_reason)
        elif tuned.progress.ending:
            if self._wind_down(tuned, "The tuning job is over."):
                self._finish(tuned, tuned.progress.ending, tuned.progress.error_message)
        elif reason := self._overdue(tuned.job):
            lines = [lifecycle.log(reason, severity="WARNING"), lifecycle.log(lifecycle.CANCELLING)]
            self._move(tuned.job, "CANCELLING", reason=reason, logs=lines, stop_reason=reason)
            self.wake()
        else:
            tuned = self._suggest(tuned)
            job = self._mirror(tuned)
            if not tuned.open:
                self._finish(replace(tuned, job=job), "SUCCEEDED", "")

    def _goes_on(self, tuned: TunedJob) -> bool:
        """Whether it is known already that the job goes on: a trial that failed may end it when it is told of."""
        any_failed = any(trial.infeasible for trial in tuned.untold)
        return not (tuned.is_ending or any_failed or self._overdue(tuned.job))

    def _suggest(self, tuned: TunedJob) -> TunedJob:
        """Begin as many trials as there is room for."""
        spec = tuned.spec
        wanted = min(max_parallel_trials(spec) - len(tuned.open), max_trials(spec) - len(tuned.own))
        if wanted <= 0 or tuned.study.state != "ACTIVE":
            return tuned
        proposals = self._policy.suggest(tuned.study, tuned.trials, wanted)
        now_ns = self._clock.time_ns()

        def change(study: StudyRecord, _trials: list[TrialRecord]) -> StudyChange:
            given = studies.assign(study, (), client_id=OWN, count=wanted, proposals=proposals, now_ns=now_ns)
            after = given.study
            if given.missing:
                after = replace(after, state="COMPLETED", inactive_reason="The search space is exhausted.")
            return StudyChange(after, given.changed)

        changed = self._store.change_study(tuned.study.name, change)
        tuned = replace(tuned, study=changed.study)
        for trial in changed.trials:
            tuned = tuned.with_trial(trial)
            tuned.memory.jobs[str(trial.name.trial_id)] = self._steps.begin(tuned, trial)
        if changed.trials:
            self._wake_jobs()
        if changed.study.state == "COMPLETED":
            text = f"The search space is exhausted: there are no more than {len(tuned.trials)} different trials."
            tuned = self._progress.warn(tuned, [text])
        return tuned

    def _tell_of_ends(self, tuned: TunedJob) -> TunedJob:
        """Write to the job's log how trials ended, once each, and judge whether the job goes on."""
        for trial in sorted(tuned.untold, key=lambda each: (each.end_time_ns or 0, each.name)):
            tuned = self._tell(tuned, trial)
        return tuned

    def _tell(self, tuned: TunedJob, trial: TrialRecord) -> TunedJob:
        trial_id = str(trial.name.trial_id)
        try:
            own = self._store.get_job(trial_job_name(tuned.job.name, trial))
        except NotFound:
            own = None
        line = lifecycle.log(
            end_line(tuned, trial, own), severity="WARNING" if own and own.state == "FAILED" else "INFO"
        )

        def change(progress: Progress) -> tuple[Progress, Sequence[NewEvent]] | None:
            if trial_id in progress.told:
                return None
            progress = replace(progress, told=(*progress.told, trial_id))
            if own is None or own.state != "FAILED":
                return progress, [line]
            progress = replace(progress, failed=(*progress.failed, trial_id))
            why = why_failed(
                progress,
                max_failed_trials=tuned.spec.max_failed_trials,
                parameters=texts_of(trial.parameters),
                error_message=own.error_message,
            )
            if why and not progress.ending:
                progress = replace(progress, ending="FAILED", error_message=why)
            return progress, [line]

        if own is not None:
            follower = self._steps.follower(tuned, own)
            metric = follower.poll(own)
            warnings = [*follower.notes(metric), *unread_warnings(follower.unread_parameters(own))]
            if metric is None and own.state == "SUCCEEDED":
                warnings.append(follower.why_missing())
            tuned = self._progress.warn(tuned, warnings)
            tuned.memory.followers.pop(trial_id, None)
            tuned.memory.jobs[trial_id] = own
        return self._progress.note(tuned, change)

    def _mirror(self, tuned: TunedJob) -> JobRecord:
        """Move the tuning job on with its trials: it waits while all of them wait, and runs from the first one on."""
        job, own = tuned.job, [*tuned.memory.jobs.values()]
        started = [each.start_time_ns for each in own if each.start_time_ns is not None]
        if job.state == "QUEUED" and any(each.state != "QUEUED" or each.is_terminal for each in own):
            job = self._move(job, "PREPARING", reason="a trial is being prepared", logs=[])
        if job.state == "PREPARING" and started:
            job = self._move(job, "RUNNING", reason="a trial runs", logs=[], start_time_ns=min(started))
        if job.state == "QUEUED" and own and own[0].waiting_reason != job.waiting_reason:
            reason = own[0].waiting_reason
            told = [NewEvent("decision", reason)] if reason else []
            job = self._store.change_job(
                job.name,
                lambda old: (replace(old, waiting_reason=reason), told) if old.state == "QUEUED" else None,
                lease=self._lease.current,
            )
        return job

    def _overdue(self, job: JobRecord) -> str:
        """Why the job has taken too long; empty if it has not."""
        scheduling, now_ns = scheduling_of(job), self._clock.time_ns()
        if job.state in ("QUEUED", "PREPARING"):
            limit = scheduling.get("maxWaitTime")
            if limit and now_ns - job.create_time_ns > parse_duration_s(limit) * 1e9:
                waited = f"The job waited longer than maxWaitTime ({limit}) and was cancelled."
                return f"{waited} {job.waiting_reason}".strip()
        limit_s = parse_duration_s(scheduling.get("maxRunningTime") or DEFAULT_MAX_RUNNING_TIME)
        if job.start_time_ns is not None and now_ns - job.start_time_ns > limit_s * 1e9:
            return f"The job ran longer than maxRunningTime ({format_duration(limit_s)}) and was cancelled."
        return ""

    # --- ends ---

    def _wind_down(self, tuned: TunedJob, reason: str) -> bool:
        """Stop all trials that go on; whether none is left."""
        for trial in tuned.open:
            self._steps.cancel(tuned.memory.jobs[str(trial.name.trial_id)], reason)
        return not tuned.open

    def _finish(self, tuned: TunedJob, state: JobState, error_message: str) -> None:
        job = tuned.job
        if state == "SUCCEEDED":
            lines = [lifecycle.log(lifecycle.COMPLETED)]
            if job.state == "QUEUED":
                job = self._move(job, "PREPARING", reason="its trials have run", logs=[])
            if job.state == "PREPARING":
                job = self._move(job, "RUNNING", reason="its trials have run", logs=[])
        elif state == "CANCELLED":
            lines = [lifecycle.log(lifecycle.CANCELLED)]
        else:
            lines = [lifecycle.log(error_message, severity="ERROR")]
        reason = error_message or "all trials have ended"
        output = self._outputs.of(job)
        self._move(job, state, reason=reason, logs=lines, error_message=error_message, output=output)

    def _move(
        self, job: JobRecord, to: JobState, *, reason: str, logs: list[NewEvent], **fields: object
    ) -> JobRecord:
        """Apply a transition, unless the job has left the state that it was judged in."""

        def change(current: JobRecord) -> tuple[JobRecord, list[NewEvent]] | None:
            if current.state != job.state:
                return None
            moved = replace(current, **fields)  # type: ignore[arg-type]
            return lifecycle.transition(moved, to, reason=reason, now_ns=self._clock.time_ns(), logs=logs)

        return self._store.change_job(job.name, change, lease=self._lease.current)
