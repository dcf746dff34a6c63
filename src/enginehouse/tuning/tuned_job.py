"""A tuning job as one step of it sees it, and how its progress is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from enginehouse.jobs.hyperparameters import max_trials
from enginehouse.metadata.base import JobStore
from enginehouse.metadata.records import JobRecord, Lease, NewEvent, StudyRecord, TrialRecord
from enginehouse.schemas.ml_v1 import HyperparameterSpec
from enginehouse.tuning.following import Follower
from enginehouse.tuning.job_study import OWN
from enginehouse.tuning.progress import Progress


@dataclass
class Memory:
    """What is kept of a tuning job between steps; all of it can be read again.

    Attributes:
        completed: trials of the study that have ended, by number.
        followers: of trials that go on, by id.
        jobs: the jobs of the trials as they were seen last, by trial id.
    """

    completed: dict[int, TrialRecord] = field(default_factory=dict)
    followers: dict[str, Follower] = field(default_factory=dict)
    jobs: dict[str, JobRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedJob:
    """A tuning job with its study, as they were when the step began or were left by it so far.

    Attributes:
        trials: all of the study, by number.
    """

    job: JobRecord
    spec: HyperparameterSpec
    progress: Progress
    study: StudyRecord
    trials: Sequence[TrialRecord]
    memory: Memory

    @property
    def own(self) -> list[TrialRecord]:
        """The trials of this job, without those of the job that it resumes."""
        return [trial for trial in self.trials if trial.client_id == OWN]

    @property
    def open(self) -> list[TrialRecord]:
        """The trials that have not ended."""
        return [trial for trial in self.trials if trial.state != "COMPLETED"]

    @property
    def untold(self) -> list[TrialRecord]:
        """The trials of this job that have ended, of which its log does not tell yet."""
        told = self.progress.told
        return [each for each in self.own if each.state == "COMPLETED" and str(each.name.trial_id) not in told]

    @property
    def is_ending(self) -> bool:
        """Whether no trial is to be begun any more."""
        return self.job.state == "CANCELLING" or bool(self.progress.ending)

    @property
    def last_number(self) -> int:
        """The number of the job's last trial, if all are made."""
        return len(self.trials) - len(self.own) + max_trials(self.spec)

    def with_trial(self, trial: TrialRecord) -> TunedJob:
        """With a trial that is new or was changed."""
        others = [each for each in self.trials if each.name != trial.name]
        if trial.state == "COMPLETED":
            self.memory.completed[trial.name.trial_id] = trial
        return replace(self, trials=sorted([*others, trial], key=lambda each: each.name))


Note = Callable[[Progress], tuple[Progress, Sequence[NewEvent]] | None]


class ProgressWriter:
    """Writes the progress of tuning jobs, each with its log lines in one transaction.

    Args:
        lease: under which to write.
    """

    def __init__(self, store: JobStore, lease: Callable[[], Lease | None]) -> None:
        self._store = store
        self._lease = lease

    def note(self, tuned: TunedJob, change: Note) -> TunedJob:
        """Change the progress, unless `change` finds that done already and returns None."""

        def apply(job: JobRecord) -> tuple[JobRecord, Sequence[NewEvent]] | None:
            changed = change(Progress.from_json(job.run))
            return None if changed is None else (replace(job, run=changed[0].to_json()), changed[1])

        job = self._store.change_job(tuned.job.name, apply, lease=self._lease())
        return replace(tuned, job=job, progress=Progress.from_json(job.run))

    def warn(self, tuned: TunedJob, warnings: Sequence[str]) -> TunedJob:
        """Tell the job's owner, of each thing only once."""
        if set(warnings) <= set(tuned.progress.warned):
            return tuned

        def change(progress: Progress) -> tuple[Progress, Sequence[NewEvent]]:
            new = [text for text in dict.fromkeys(warnings) if text not in progress.warned]
            lines = [NewEvent("log", text, severity="WARNING") for text in new]
            return replace(progress, warned=(*progress.warned, *new)), lines

        return self.note(tuned, change)
