"""One trial of a tuning job, brought forward: its job made, its metric followed, it stopped, its end written down.

Called by `tuning.trials` in each step of a tuning job, for each trial that has not ended. All of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, NotFound
from enginehouse.core.settings import Settings
from enginehouse.jobs import lifecycle
from enginehouse.jobs.hyperparameters import metric_tag
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord, Lease, NewEvent, TrialRecord
from enginehouse.storage.base import ObjectStore
from enginehouse.tuning.following import Follower
from enginehouse.tuning.job_study import maximizes, texts_of
from enginehouse.tuning.metrics import Metric
from enginehouse.tuning.policy import Policy
from enginehouse.tuning.progress import Progress
from enginehouse.tuning.telling import parameters_line, unread_warnings
from enginehouse.tuning.trial_jobs import trial_job, trial_job_name
from enginehouse.tuning.tuned_job import ProgressWriter, TunedJob

FOLLOW_EVERY_S = 1.0
TELL_OF_FLAGS_S = 60.0
"""How long a trial runs before flags that nothing has read yet are told of; a shorter one is told of at its end."""


class TrialSteps:
    """See the module.

    Args:
        lease: under which jobs are changed.
        wake_jobs: called when there is a trial to start or to stop.
    """

    def __init__(
        self,
        store: MetadataStore,
        storage: ObjectStore,
        policy: Policy,
        settings: Settings,
        clock: Clock,
        *,
        lease: Callable[[], Lease | None],
        wake_jobs: Callable[[], None],
    ) -> None:
        self._store = store
        self._storage = storage
        self._policy = policy
        self._settings = settings
        self._clock = clock
        self._lease = lease
        self._wake_jobs = wake_jobs
        self._progress = ProgressWriter(store, lease)

    def bring_forward(self, tuned: TunedJob, trial: TrialRecord) -> TunedJob:
        """Do what is next for a trial that has not ended."""
        name = trial_job_name(tuned.job.name, trial)
        try:
            own = self._store.get_job(name)
        except NotFound:
            if tuned.is_ending:  # a kill came between the suggestion and its job
                return self._complete(tuned, trial, None, None)
            own = self.begin(tuned, trial)
            self._wake_jobs()
        tuned.memory.jobs[name.trial_id] = own
        if own.is_terminal:
            return self._complete(tuned, trial, own, self.follower(tuned, own).poll(own))
        if own.state == "RUNNING":
            tuned, trial = self._follow(tuned, trial, own)
        if trial.state == "STOPPING":
            tuned = self._stop(tuned, trial, own)
        return tuned

    def begin(self, tuned: TunedJob, trial: TrialRecord) -> JobRecord:
        """Queue the trial's job; where a kill came after that, it is there already."""
        record = trial_job(tuned.job, trial, self._clock.time_ns())
        shown = parameters_line(texts_of(trial.parameters))
        line = lifecycle.log(f"Trial {record.name.trial_id} of {tuned.last_number}: {shown}.")
        try:
            record = self._store.create_job(record, [NewEvent("state", "created", data={"to": "QUEUED"}), line])
        except AlreadyExists:
            record = self._store.get_job(record.name)
        return record

    def follower(self, tuned: TunedJob, own: JobRecord) -> Follower:
        """What reads the trial's metrics."""
        followers, trial_id = tuned.memory.followers, own.name.trial_id
        if trial_id not in followers:
            followers[trial_id] = Follower(own, metric_tag(tuned.spec), self._storage, self._settings.jobs_dir)
        return followers[trial_id]

    def _follow(self, tuned: TunedJob, trial: TrialRecord, own: JobRecord) -> tuple[TunedJob, TrialRecord]:
        """Store what the trial has measured since, and judge it."""
        follower, now_s = self.follower(tuned, own), self._clock.monotonic()
        if now_s - follower.looked_s < FOLLOW_EVERY_S:
            return tuned, trial
        follower.looked_s = now_s
        since_ns = own.start_time_ns or own.create_time_ns
        if self._clock.time_ns() - since_ns > TELL_OF_FLAGS_S * 1e9:
            tuned = self._progress.warn(tuned, unread_warnings(follower.unread_parameters(own)))
        metric = follower.poll(own)
        measured = follower.measurements(metric, since_ns) if metric else []
        if not measured or measured == trial.measurements:
            return tuned, trial
        trial = self._store.change_trial(trial.name, lambda old: (replace(old, measurements=measured), []))
        tuned = tuned.with_trial(trial)
        if tuned.spec.enable_trial_early_stopping and trial.state == "ACTIVE":
            decision = self._policy.should_stop(tuned.study, tuned.trials, trial)
            if decision.stop:
                why = [NewEvent("decision", decision.reason)]
                trial = self._store.change_trial(trial.name, lambda old: (replace(old, state="STOPPING"), why))
        return tuned.with_trial(trial), trial

    def _stop(self, tuned: TunedJob, trial: TrialRecord, own: JobRecord) -> TunedJob:
        """Let a trial end early; noted with the tuning job first, since its own job alone looks cancelled."""
        trial_id = own.name.trial_id
        if trial_id not in tuned.progress.stopped:
            decisions = self._store.events(str(trial.name), kinds=("decision",))
            reason = decisions[-1].message if decisions else "It was told to stop."

            def change(progress: Progress) -> tuple[Progress, list[NewEvent]] | None:
                if trial_id in progress.stopped:
                    return None
                line = lifecycle.log(f"Trial {trial_id} of {tuned.last_number} is stopped early: {reason}")
                return replace(progress, stopped={**progress.stopped, trial_id: reason}), [line]

            tuned = self._progress.note(tuned, change)
        self.cancel(own, tuned.progress.stopped[trial_id])
        return tuned

    def cancel(self, own: JobRecord, reason: str) -> None:
        """Ask a trial's processes to end, unless that is done."""
        if own.is_terminal or own.state == "CANCELLING":
            return

        self._store.change_job(
            own.name,
            lambda job: lifecycle.cancel(job, reason=reason, now_ns=self._clock.time_ns()),
            lease=self._lease(),
        )
        self._wake_jobs()

    def _complete(
        self, tuned: TunedJob, trial: TrialRecord, own: JobRecord | None, metric: Metric | None
    ) -> TunedJob:
        """Write the trial's end to its study."""
        succeeded = own is not None and (
            own.state == "SUCCEEDED" or (own.state == "CANCELLED" and own.name.trial_id in tuned.progress.stopped)
        )
        final, measured, reason = None, trial.measurements, own.error_message if own else "It never began."
        if own is not None and metric is not None:
            follower = self.follower(tuned, own)
            since_ns = own.start_time_ns or own.create_time_ns
            measured = follower.measurements(metric, since_ns)
            if succeeded:
                best = self._settings.tuning_objective == "best"
                point = metric.best(maximize=maximizes(tuned.spec)) if best else metric.last()
                final = follower.measurement(point, since_ns)
        elif succeeded:
            reason = f"The metric {metric_tag(tuned.spec)!r} was never reported."
        ended_ns = own.end_time_ns if own and own.end_time_ns is not None else self._clock.time_ns()

        def change(old: TrialRecord) -> tuple[TrialRecord, list[NewEvent]] | None:
            if old.state == "COMPLETED":
                return None
            ended = replace(
                old,
                state="COMPLETED",
                measurements=measured,
                final_measurement=final,
                infeasible=final is None,
                infeasible_reason=reason if final is None else "",
                end_time_ns=ended_ns,
            )
            return ended, []

        return tuned.with_trial(self._store.change_trial(trial.name, change))
