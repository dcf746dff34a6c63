"""A tuning job without processes: real store and reconcilers, a backend and trainers under the test's control."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enginehouse.backends.base import Phase
from enginehouse.core.errors import NotFound
from enginehouse.core.names import JobName, ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.jobs.logs import job_log
from enginehouse.jobs.prediction import FoundModel
from enginehouse.jobs.reconciler import JobReconciler
from enginehouse.jobs.service import JobService
from enginehouse.jobs.validate import Validator
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.replica.spec import Outcome
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import Job
from enginehouse.schemas.wire import from_builtins, to_builtins
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.engine import make_sdist
from enginehouse.testing.fakes import FakeBackend
from enginehouse.tuning.job_output import TuningOutputs
from enginehouse.tuning.search import SearchPolicy
from enginehouse.tuning.trials import TuningReconciler

CATALOGUE = Catalogue.load()
UNITS = {"parameterName": "units", "type": "INTEGER", "minValue": 1, "maxValue": 10**6}


class Crash(BaseException):
    """The engine is killed here."""


class MortalStore:
    """A store whose engine is killed at one of its writes: before it, or when it is done and nobody knows yet."""

    def __init__(self, store: SqlMetadataStore) -> None:
        self._store = store
        self.writes = 0
        self.dies_at: tuple[int, str] = (0, "")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not name.startswith(("change_", "create_")):
            return method

        def write(*args: Any, **others: Any) -> Any:
            self.writes += 1
            if self.dies_at == (self.writes, "before"):
                raise Crash
            result = method(*args, **others)
            if self.dies_at == (self.writes, "after"):
                raise Crash
            return result

        return write


class NoModels:
    def version(self, project: str, model_id: str, version_id: str | None) -> FoundModel:
        raise NotFound("none")

    def at(self, uri: ObjectUri) -> FoundModel:
        raise NotFound("none")


class World:
    """See the module.

    Args:
        trainer: what a trial does in a round, from its number and how many rounds it has run: reports to add, as
            (step, value), and how it ends, None while it goes on.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Callable[[int, int], tuple[list[tuple[int, float]], Outcome | None]],
        **settings: Any,
    ) -> None:
        self.clock = FakeClock()
        self.settings = load_settings({"data_dir": folder, **settings}, environ={})
        self.real = SqlMetadataStore.open_sqlite(self.settings.metadata_path, self.clock)
        self.store = MortalStore(self.real)
        self.storage = LocalObjectStore(self.settings.objects_dir, self.clock)
        self.storage.create_bucket("bucket")
        with self.storage.writer("bucket", "trainer-0.1.tar.gz") as writer:
            writer.write(make_sdist({"trainer/task.py": ""}))
        self.backend = FakeBackend()
        self._trainer = trainer
        self._rounds: dict[Path, int] = {}
        self.restart()

    def restart(self) -> None:
        """A new engine on the same data."""
        self.store.clear_leases()
        store: Any = self.store
        self.reconciler = JobReconciler(
            store,
            self.storage,
            self.backend,
            self.settings,
            self.clock,
            engine_url="http://127.0.0.1:1",
            uv=Path("uv"),
        )
        self.tuner = TuningReconciler(
            store, self.storage, SearchPolicy(), self.settings, self.clock, wake_jobs=self.reconciler.wake
        )
        self.jobs = JobService(
            store,
            Validator(CATALOGUE, self.storage, NoModels(), self.backend, self.real.get_job),
            self.clock,
            wake=lambda: None,
            position=self.reconciler.position,
            tuning_output=TuningOutputs(store).of,
        )

    def submit(self, job_id: str = "tune", scheduling: dict[str, Any] | None = None, **spec: Any) -> JobName:
        training_input = {
            "pythonModule": "trainer.task",
            "packageUris": ["gs://bucket/trainer-0.1.tar.gz"],
            "runtimeVersion": "scikit-learn-1.9",
            "jobDir": "gs://bucket/jobs/tune",
            "hyperparameters": {"hyperparameterMetricTag": "accuracy", "params": [UNITS], **spec},
            "scheduling": scheduling or {},
        }
        self.jobs.create("demo", from_builtins(Job, {"jobId": job_id, "trainingInput": training_input}))
        return JobName("demo", job_id)

    def round(self) -> None:
        """Everybody does what is next, a second passes."""
        self.tuner.run_once()
        self.reconciler.run_once()
        for directory, status in list(self.backend.statuses.items()):
            if status.phase is Phase.PREPARING:
                self.backend.run(directory, self.clock.time_ns())
            elif status.phase is Phase.RUNNING:
                self._train(directory)
        self.clock.advance(1.0)

    def _train(self, directory: Path) -> None:
        spec = self.backend.launched[directory]
        if directory in self.backend.stops:
            self.backend.end(directory, Outcome("stopped", ended_ns=self.clock.time_ns()))
            return
        done = self._rounds[directory] = self._rounds.get(directory, 0) + 1
        reports, outcome = self._trainer(int(spec.environment["CLOUD_ML_TRIAL_ID"]), done)
        with Path(spec.environment["CLOUD_ML_HP_METRIC_FILE"]).open("a") as file:
            for step, value in reports:
                line = {"global_step": str(step), "timestamp": self.clock.time_ns() / 1e9, "accuracy": str(value)}
                file.write(json.dumps(line) + "\n")
        if outcome is not None:
            self.backend.end(directory, outcome)

    def finish(self, name: JobName, *, rounds: int = 60) -> dict[str, Any]:
        """Rounds until the job has ended; the job as the API shows it."""
        for _ in range(rounds):
            if self.real.get_job(name).is_terminal:
                return self.shown(name)
            self.round()
        raise AssertionError(f"{self.shown(name)} did not end")

    def shown(self, name: JobName) -> dict[str, Any]:
        return to_builtins(self.jobs.get(name))

    def lines(self, name: JobName) -> list[str]:
        """The job's log without that of its trials."""
        records, _cursor = job_log(self.real, self.settings.jobs_dir, name).read("", 1000)
        return [record.message for record in records if not record.fields.get("trial_id")]

    def close(self) -> None:
        self.real.close()
        self.storage.close()
