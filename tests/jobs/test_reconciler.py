"""The reconciler against a backend under the test's control and a real store."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import JobName, ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.jobs.logs import job_log
from enginehouse.jobs.prediction import FoundModel
from enginehouse.jobs.reconciler import JobReconciler
from enginehouse.jobs.run import replica_directory
from enginehouse.jobs.service import JobService
from enginehouse.jobs.validate import Validator
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.replica.spec import Outcome
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import Job
from enginehouse.schemas.wire import from_builtins
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.fakes import FakeBackend
from enginehouse.tuning.job_output import TuningOutputs

from .test_archive import sdist

PACKAGE = "gs://bucket/trainer-0.0.0.tar.gz"


class NoModels:
    """No model is registered."""

    def version(self, project: str, model_id: str, version_id: str | None) -> FoundModel:
        raise NotFound(f"There is no model {model_id!r}.")

    def at(self, uri: ObjectUri) -> FoundModel:
        raise NotFound(f"There is no model at {uri}.")


class World:
    """A job service and its reconciler, with everything else under control."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.clock = FakeClock()
        self.settings = load_settings({"data_dir": directory, "max_running_jobs": 2, **settings}, environ={})
        self.store = SqlMetadataStore.open_sqlite(self.settings.metadata_path, self.clock)
        self.storage = LocalObjectStore(self.settings.objects_dir, self.clock)
        self.backend = FakeBackend()
        catalogue = Catalogue.load()
        self.reconciler = self.restart()
        self.jobs = JobService(
            self.store,
            Validator(catalogue, self.storage, NoModels(), self.backend, self.store.get_job),
            self.clock,
            wake=lambda: self.reconciler.wake(),
            position=lambda name: self.reconciler.position(name),
            tuning_output=TuningOutputs(self.store).of,
        )
        self.storage.create_bucket("bucket")
        self.upload({"trainer-0.0.0/trainer/__init__.py": "", "trainer-0.0.0/trainer/task.py": ""})

    def restart(self) -> JobReconciler:
        """A new engine on the same data, as after a kill: leases of the dead one are forgotten."""
        self.store.clear_leases()
        self.reconciler = JobReconciler(
            self.store,
            self.storage,
            self.backend,
            self.settings,
            self.clock,
            engine_url="http://127.0.0.1:1",
            uv=Path("uv"),
        )
        return self.reconciler

    def upload(self, files: dict[str, str]) -> None:
        with self.storage.writer("bucket", "trainer-0.0.0.tar.gz") as writer:
            writer.write(sdist(files).read())

    def submit(self, job_id: str = "iris_1", **training_input: object) -> JobName:
        body = {
            "jobId": job_id,
            "trainingInput": {
                "pythonModule": "trainer.task",
                "packageUris": [PACKAGE],
                "runtimeVersion": "scikit-learn-1.9",
                "jobDir": "gs://bucket/jobs/x",
                **training_input,
            },
        }
        self.jobs.create("demo", from_builtins(Job, body))
        return JobName("demo", job_id)

    def directory(self, name: JobName) -> Path:
        return replica_directory(self.settings.jobs_dir, name, "master-replica-0")

    def state(self, name: JobName) -> str:
        return self.store.get_job(name).state

    def lines(self, name: JobName) -> list[str]:
        records, _cursor = job_log(self.store, self.settings.jobs_dir, name).read("", 1000)
        return [record.message for record in records]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()
    world.storage.close()


def test_submitting_is_safe_to_repeat(world: World) -> None:
    name = world.submit()
    world.clock.advance(29)
    assert world.submit() == name
    assert len(world.store.queued_jobs()) == 1
    assert world.lines(name).count("Validating job requirements...") == 1
    with pytest.raises(AlreadyExists):
        world.submit(args=["--other"])
    world.clock.advance(2)  # who names no run of his can't be told from another for long
    with pytest.raises(AlreadyExists):
        world.submit()


def test_a_good_job_goes_its_whole_way(world: World) -> None:
    name = world.submit(args=["--steps", "5"])
    assert world.state(name) == "QUEUED"
    assert world.reconciler.run_once()
    assert world.state(name) == "PREPARING"
    directory = world.directory(name)
    spec = world.backend.launched[directory]
    assert spec.arguments == ("--steps", "5", "--job-dir", "gs://bucket/jobs/x")
    assert spec.environment["CLOUD_ML_JOB_ID"] == "iris_1"
    assert Path(spec.packages[0].path).read_bytes()[:2] == b"\x1f\x8b"
    world.clock.advance(5)
    world.backend.run(directory, world.clock.time_ns())
    world.reconciler.run_once()
    assert world.state(name) == "RUNNING"
    world.clock.advance(36)
    world.backend.end(directory, Outcome("exited", exit_code=0, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    job = world.jobs.get(name)
    assert (job.state, job.error_message) == ("SUCCEEDED", "")
    assert (job.start_time, job.end_time) == ("2026-01-01T00:00:05Z", "2026-01-01T00:00:41Z")
    assert job.training_output is not None
    assert job.training_output.consumed_ml_units == 0.01
    assert world.backend.reaped == [directory]
    assert world.lines(name) == [
        "Validating job requirements...",
        "Job creation request has been successfully validated.",
        "Job iris_1 is queued.",
        "Waiting for job to be provisioned.",
        "Waiting for training program to start.",
        "Job is running.",
        "Finished tearing down training program.",
        "Job completed successfully.",
    ]
    assert not world.reconciler.run_once()


def test_a_job_that_ends_between_two_looks_was_running(world: World) -> None:
    name = world.submit()
    world.reconciler.run_once()
    world.backend.end(world.directory(name), Outcome("exited", exit_code=0, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    assert world.state(name) == "SUCCEEDED"
    assert "Job is running." in world.lines(name)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            Outcome("exited", exit_code=1, traceback="Traceback (most recent call last):\n  x\nValueError: no\n"),
            "The replica master 0 exited with a non-zero status of 1. \nTraceback (most recent call last):\n  x\n"
            "ValueError: no\n\nTo find out more",
        ),
        (
            Outcome("exited", signal=9, out_of_memory=True),
            "The replica master 0 ran out-of-memory and exited with a non-zero status of 9(SIGKILL).\n\n",
        ),
        (Outcome("environment_failed", message="No matching distribution"), "could not be prepared: No matching"),
    ],
)
def test_a_failed_job_says_why(world: World, outcome: Outcome, message: str) -> None:
    name = world.submit()
    world.reconciler.run_once()
    world.backend.end(world.directory(name), outcome)
    world.reconciler.run_once()
    job = world.jobs.get(name)
    assert job.state == "FAILED"
    assert message in job.error_message
    assert "mle jobs stream-logs iris_1" in job.error_message
    assert world.lines(name)[-1] == job.error_message


def test_cancelling_a_running_job_stops_it_and_then_ends_it(world: World) -> None:
    name = world.submit()
    world.reconciler.run_once()
    world.backend.run(world.directory(name), world.clock.time_ns())
    world.reconciler.run_once()
    world.jobs.cancel(name)
    assert world.state(name) == "CANCELLING"
    world.reconciler.run_once()
    world.reconciler.run_once()
    assert world.backend.stops == {world.directory(name): "The job was cancelled by the user."}
    assert world.state(name) == "CANCELLING", "it ends when its processes have ended"
    world.backend.end(world.directory(name), Outcome("stopped", signal=15, ended_ns=world.clock.time_ns()))
    world.reconciler.run_once()
    job = world.jobs.get(name)
    assert (job.state, job.error_message) == ("CANCELLED", "The job was cancelled by the user.")
    assert job.end_time
    world.jobs.cancel(name)
    assert world.jobs.get(name) == job, "cancelling an ended job changes nothing"


def test_cancelling_a_queued_job_runs_nothing(world: World) -> None:
    name = world.submit()
    world.jobs.cancel(name)
    world.reconciler.run_once()
    assert world.state(name) == "CANCELLED"
    assert not world.backend.launched


def test_the_third_job_waits_and_is_told_why(world: World) -> None:
    names = [world.submit(f"job_{i}") for i in range(3)]
    world.reconciler.run_once()
    assert [world.state(name) for name in names] == ["PREPARING", "PREPARING", "QUEUED"]
    assert "all 2 places" in world.store.get_job(names[2]).waiting_reason
    world.backend.end(world.directory(names[0]), Outcome("exited", exit_code=0))
    world.reconciler.run_once()
    world.reconciler.run_once()
    assert [world.state(name) for name in names] == ["SUCCEEDED", "PREPARING", "PREPARING"]


def test_max_running_time_cancels(world: World) -> None:
    name = world.submit(scheduling={"maxRunningTime": "60s"})
    world.reconciler.run_once()
    world.backend.run(world.directory(name), world.clock.time_ns())
    world.reconciler.run_once()
    world.clock.advance(59)
    world.reconciler.run_once()
    assert world.state(name) == "RUNNING"
    world.clock.advance(2)
    world.reconciler.run_once()
    assert world.state(name) == "CANCELLING"
    world.backend.end(world.directory(name), Outcome("stopped"))
    world.reconciler.run_once()
    assert "maxRunningTime (60s)" in world.jobs.get(name).error_message


def test_max_wait_time_cancels_what_is_still_queued(world: World) -> None:
    for i in range(2):
        world.submit(f"busy_{i}")
    name = world.submit("waiting", scheduling={"maxWaitTime": "1800s"})
    world.reconciler.run_once()
    world.clock.advance(1801)
    world.reconciler.run_once()
    world.reconciler.run_once()
    assert world.state(name) == "CANCELLED"
    assert "maxWaitTime" in world.jobs.get(name).error_message


def test_a_new_engine_goes_on_where_the_old_one_was_killed(world: World) -> None:
    name = world.submit()
    world.backend.fail_with = OSError("killed here")
    world.reconciler.run_once()
    assert world.state(name) == "PREPARING"
    world.backend.fail_with = None
    world.restart().run_once()
    assert list(world.backend.launched) == [world.directory(name)]
    world.backend.end(world.directory(name), Outcome("exited", exit_code=0))
    world.restart().run_once()
    assert world.state(name) == "SUCCEEDED"
    assert len(world.lines(name)) == len(set(world.lines(name)))


def test_an_engine_that_lost_its_lease_changes_nothing(world: World) -> None:
    name = world.submit()
    old = world.reconciler
    old.run_once()
    world.clock.advance(31)
    world.restart().run_once()
    world.backend.end(world.directory(name), Outcome("exited", exit_code=0))
    assert not old.run_once()
    assert world.state(name) == "PREPARING"


def test_a_package_that_vanished_after_the_submit_fails_the_job(world: World) -> None:
    name = world.submit()
    world.storage.delete("bucket", "trainer-0.0.0.tar.gz")
    world.reconciler.run_once()
    world.reconciler.run_once()
    assert world.state(name) == "FAILED"
    assert "trainer-0.0.0.tar.gz" in world.jobs.get(name).error_message


CLUSTER = {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": "1"} | {
    "parameterServerType": "standard",
    "parameterServerCount": "1",
}
TASKS = ("master-replica-0", "worker-replica-0", "ps-replica-0")


class TestDistributed:
    """One master, one worker and one parameter server, whose ends the test decides."""

    @pytest.fixture
    def name(self, world: World) -> JobName:
        name = world.submit(**CLUSTER)
        world.reconciler.run_once()
        return name

    def of(self, world: World, name: JobName, task: str, launch: int = 0) -> Path:
        return replica_directory(world.settings.jobs_dir, name, task, launch)

    def run(self, world: World, name: JobName) -> None:
        for task in TASKS:
            world.backend.run(self.of(world, name, task), world.clock.time_ns())
        world.reconciler.run_once()
        assert world.state(name) == "RUNNING"

    def test_all_are_launched_and_know_each_other(self, world: World, name: JobName) -> None:
        specs = [world.backend.launched[self.of(world, name, task)] for task in TASKS]
        configs = [json.loads(spec.environment["TF_CONFIG"]) for spec in specs]
        assert [config["task"]["type"] for config in configs] == ["chief", "worker", "ps"]
        (cluster,) = {json.dumps(config["cluster"]) for config in configs}
        addresses = [address for role in json.loads(cluster).values() for address in role]
        assert len(set(addresses)) == 3

    def test_the_job_runs_once_all_do(self, world: World, name: JobName) -> None:
        for task in TASKS[:2]:
            world.backend.run(self.of(world, name, task), world.clock.time_ns())
        world.reconciler.run_once()
        assert world.state(name) == "PREPARING"
        self.run(world, name)

    def test_it_ends_with_its_master_and_the_others_are_stopped(self, world: World, name: JobName) -> None:
        self.run(world, name)
        world.backend.end(self.of(world, name, TASKS[0]), Outcome("exited", exit_code=0, ended_ns=5))
        world.reconciler.run_once()
        world.restart().run_once()
        assert set(world.backend.stops) == {self.of(world, name, task) for task in TASKS[1:]}
        assert world.state(name) == "RUNNING", "it is over when its last process is"
        for task in TASKS[1:]:
            world.backend.end(self.of(world, name, task), Outcome("stopped", signal=15))
        world.reconciler.run_once()
        assert world.state(name) == "SUCCEEDED"
        assert len(world.backend.reaped) == 3

    def test_a_killed_worker_comes_back_with_its_address(self, world: World, name: JobName) -> None:
        self.run(world, name)
        before = world.backend.launched[self.of(world, name, TASKS[1])]
        world.backend.end(self.of(world, name, TASKS[1]), Outcome("exited", signal=9))
        world.reconciler.run_once()
        world.restart().run_once()
        after = world.backend.launched[self.of(world, name, TASKS[1], 1)]
        assert after.environment["TF_CONFIG"] == before.environment["TF_CONFIG"]
        assert len(world.backend.launched) == 4
        assert "It is restarted (1 of 5)." in world.lines(name)[-1]
        assert world.state(name) == "RUNNING"

    def test_a_crash_begins_all_anew(self, world: World, name: JobName) -> None:
        self.run(world, name)
        world.backend.end(self.of(world, name, TASKS[2]), Outcome("exited", signal=11))
        world.reconciler.run_once()
        world.reconciler.run_once()
        assert set(world.backend.stops) == {self.of(world, name, task) for task in TASKS[:2]}
        for task in TASKS[:2]:
            world.backend.end(self.of(world, name, task), Outcome("stopped", signal=15))
        world.restart().run_once()
        world.restart().run_once()
        assert [self.of(world, name, task, 1) in world.backend.launched for task in TASKS] == [True] * 3
        assert any("The whole job is begun anew (1 of 3)." in line for line in world.lines(name))

    def test_an_exception_in_a_worker_fails_the_job(self, world: World, name: JobName) -> None:
        self.run(world, name)
        raised = Outcome("exited", exit_code=1, traceback="Traceback\nValueError: no", ended_ns=7)
        world.backend.end(self.of(world, name, TASKS[1]), raised)
        world.reconciler.run_once()
        world.reconciler.run_once()
        for task in (TASKS[0], TASKS[2]):
            world.backend.end(self.of(world, name, task), Outcome("stopped", signal=15))
        world.reconciler.run_once()
        job = world.jobs.get(name)
        assert job.state == "FAILED"
        assert job.error_message.startswith("The replica worker 0 exited with a non-zero status of 1.")

    def test_cancelling_stops_them_all(self, world: World, name: JobName) -> None:
        self.run(world, name)
        world.jobs.cancel(name)
        world.reconciler.run_once()
        assert set(world.backend.stops) == {self.of(world, name, task) for task in TASKS}
        for task in TASKS:
            world.backend.end(self.of(world, name, task), Outcome("stopped", signal=15))
        world.reconciler.run_once()
        assert world.state(name) == "CANCELLED"

    def test_replicas_of_a_small_host_share_its_cores(self, world: World, name: JobName) -> None:
        spec = world.backend.launched[self.of(world, name, TASKS[0])]
        cores = len(os.sched_getaffinity(0))
        if cores < 12:
            assert spec.environment["OMP_NUM_THREADS"] == str(max(1, cores // 3))
            assert any("its 3 replicas share" in line for line in world.lines(name))
        else:
            assert "OMP_NUM_THREADS" not in spec.environment


class TestValidation:
    @pytest.mark.parametrize(
        ("change", "field", "words"),
        [
            ({"pythonModule": ""}, "training_input.python_module", "required"),
            ({"pythonModule": "trainer task"}, "training_input.python_module", "no dotted module"),
            ({"packageUris": []}, "training_input.package_uris", "1 to 100"),
            ({"packageUris": ["/tmp/x.tar.gz"]}, "training_input.package_uris", "gs://"),
            ({"runtimeVersion": ""}, "training_input.runtime_version", "scikit-learn-1.9"),
            ({"runtimeVersion": "9.9"}, "training_input.runtime_version", "scikit-learn-1.9"),
            ({"pythonVersion": "2.5"}, "training_input.python_version", "3.11"),
            ({"scaleTier": "BASIC_TPU"}, "training_input.scale_tier", "no TPUs"),
            ({"scaleTier": "CUSTOM", "masterType": "huge"}, "training_input.master_type", "no machine type"),
            (
                {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "n1-standard-4", "workerCount": 1},
                "training_input.master_type",
                "can't be mixed",
            ),
            (
                {"scaleTier": "CUSTOM", "masterType": "standard", "workerCount": "1"},
                "training_input.worker_type",
                "required",
            ),
            (
                {"scaleTier": "CUSTOM", "masterType": "standard", "workerType": "standard", "workerCount": 200},
                "training_input.worker_count",
                "at most 200",
            ),
            ({"workerCount": "2"}, "training_input.worker_count", "CUSTOM"),
            ({"scaleTier": "CUSTOM"}, "training_input.master_type", "required"),
            ({"jobDir": "/tmp/x"}, "training_input.job_dir", "gs://"),
            ({"scheduling": {"priority": 1001}}, "training_input.scheduling.priority", "1000"),
            ({"scheduling": {"maxRunningTime": "5m"}}, "training_input.scheduling.max_running_time", "3600s"),
            ({"hyperparameters": {"goal": "MAXIMIZE"}}, "training_input.hyperparameters.params", "Give 1 to"),
        ],
    )
    def test_what_is_wrong_in_itself(self, world: World, change: dict[str, object], field: str, words: str) -> None:
        with pytest.raises((InvalidArgument, FailedPrecondition), match=words) as error:
            world.submit(**change)
        assert field in [violation.field for violation in error.value.violations]
        assert world.store.queued_jobs() == []

    @pytest.mark.parametrize(
        ("change", "field", "words"),
        [
            ({"packageUris": ["gs://nothing/p.tar.gz"]}, "training_input.package_uris", "storage mb gs://nothing"),
            ({"packageUris": ["gs://bucket/p.tar.gz"]}, "training_input.package_uris", "no object"),
            ({"jobDir": "gs://nothing/x"}, "training_input.job_dir", "storage mb gs://nothing"),
            ({"pythonModule": "trainer.tsk"}, "training_input.python_module", "trainer.task"),
            ({"pythonModule": "trainer"}, "training_input.python_module", "__main__"),
            ({"pythonModule": "other.task"}, "training_input.python_module", "trainer.task"),
        ],
    )
    def test_what_is_missing(self, world: World, change: dict[str, object], field: str, words: str) -> None:
        with pytest.raises(FailedPrecondition, match=words) as error:
            world.submit(**change)
        assert error.value.field == field
        assert world.store.queued_jobs() == []

    def test_all_wrong_fields_are_told_at_once(self, world: World) -> None:
        with pytest.raises(InvalidArgument) as error:
            world.submit(pythonModule="", packageUris=[], runtimeVersion="9.9")
        assert {violation.field for violation in error.value.violations} == {
            "training_input.python_module",
            "training_input.package_uris",
            "training_input.runtime_version",
        }

    def test_an_unreadable_package_says_why(self, world: World) -> None:
        with world.storage.writer("bucket", "trainer-0.0.0.tar.gz") as writer:
            writer.write(b"not an archive")
        with pytest.raises(FailedPrecondition, match="damaged") as error:
            world.submit()
        assert error.value.field == "training_input.package_uris"

    def test_a_module_may_come_from_a_dependency(self, world: World) -> None:
        world.upload({"p-1/p/__init__.py": "", "p-1/p.egg-info/requires.txt": "object_detection\n"})
        assert world.submit(pythonModule="object_detection.train")

    def test_bad_ids_and_duplicates(self, world: World) -> None:
        with pytest.raises(InvalidArgument) as error:
            world.submit("object_detection_0.1")
        assert error.value.field == "job.job_id"
        world.submit()
        with pytest.raises(Exception, match="iris_1") as duplicate:
            world.submit(args=["--other"])
        assert duplicate.value.http_status == 409  # type: ignore[attr-defined]


def test_labels_are_patched_under_an_etag(world: World) -> None:
    name = world.submit()
    job = world.jobs.get(name)
    changed = world.jobs.patch(name, Job(labels={"team": "a"}, etag=job.etag), frozenset({"labels"}))
    assert changed.labels == {"team": "a"}
    with pytest.raises(Exception, match="etag"):
        world.jobs.patch(name, Job(labels={}, etag=job.etag), frozenset({"labels"}))
    with pytest.raises(InvalidArgument) as error:
        world.jobs.patch(name, Job(), frozenset({"state"}))
    assert error.value.field == "update_mask"
    assert world.jobs.get(name).labels == {"team": "a"}


def test_the_log_is_read_by_cursor_without_gaps_or_repeats(world: World) -> None:
    name = world.submit()
    seen, cursor = [], ""
    for _ in range(4):
        records, cursor = job_log(world.store, world.settings.jobs_dir, name).read(cursor, 1)
        seen += [record.message for record in records]
        world.reconciler.run_once()
    records, cursor = job_log(world.store, world.settings.jobs_dir, name).read(cursor, 100)
    assert seen + [record.message for record in records] == world.lines(name)
