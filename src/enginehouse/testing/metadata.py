"""The contract tests of a metadata store: subclass and provide the `store` and `clock` fixtures."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest

from enginehouse.core.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import JobName, ModelName, OperationName, VersionName
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord, ModelRecord, NewEvent, OperationRecord, VersionRecord
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.metadata_studies import StudyStoreContract


def make_job(job_id: str = "job_1", *, project: str = "demo", state: str = "QUEUED") -> JobRecord:
    """A job record as `JobService.create` makes one."""
    return JobRecord(
        name=JobName(project, job_id),
        state=state,  # type: ignore[arg-type]
        request={"jobId": job_id},
        labels={},
        priority=0,
        create_time_ns=1,
    )


def make_model(model_id: str = "iris", *, project: str = "demo") -> ModelRecord:
    return ModelRecord(name=ModelName(project, model_id), request={}, create_time_ns=1)


def make_version(version_id: str = "v1", *, model: str = "iris") -> tuple[VersionRecord, OperationRecord]:
    """A version being created, with its operation."""
    name = VersionName("demo", model, version_id)
    version = VersionRecord(
        name=name, uid=f"uid-{model}-{version_id}", state="CREATING", request={}, create_time_ns=1
    )
    operation = OperationRecord(
        name=OperationName("demo", f"create_{model}_{version_id}-1"),
        operation_type="CREATE_VERSION",
        model=name.model,
        version_id=version_id,
        request={},
        create_time_ns=1,
    )
    return version, operation


class MetadataStoreContract(StudyStoreContract):
    """What every metadata store does; see `metadata.base`."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def store(self) -> MetadataStore:
        raise NotImplementedError("subclasses give the store under test")

    def test_a_job_reads_back_as_it_was_written(self, store: MetadataStore) -> None:
        job = replace(make_job(), plan={"replicas": [{"role": "master"}]}, error_message="ü", start_time_ns=2**62)
        store.create_job(job, [])
        assert store.get_job(job.name) == job

    def test_a_job_id_is_used_once_per_project(self, store: MetadataStore) -> None:
        store.create_job(make_job(), [NewEvent("log", "first")])
        with pytest.raises(AlreadyExists) as error:
            store.create_job(make_job(), [NewEvent("log", "second")])
        assert error.value.field == "job.job_id"
        assert [e.message for e in store.events("projects/demo/jobs/job_1")] == ["first"]
        store.create_job(make_job(project="other"), [])

    def test_trials_are_jobs_that_only_their_job_shows(self, store: MetadataStore) -> None:
        job = replace(make_job(), is_tuning=True)
        trial = replace(make_job(), name=job.name.trial("1"))
        store.create_job(job, [])
        store.create_job(trial, [NewEvent("log", "begins")])
        with pytest.raises(AlreadyExists):
            store.create_job(trial, [])
        store.change_job(trial.name, lambda old: (replace(old, state="RUNNING"), []))
        store.create_job(replace(trial, name=job.name.trial("2")), [])
        assert store.get_job(trial.name).state == "RUNNING"
        assert [each.name for each in store.list_jobs("demo", page_size=9).items] == [job.name]
        assert [each.name for each in store.trials_of(job.name)] == [job.name.trial("1"), job.name.trial("2")]
        assert [each.name for each in store.started_jobs()] == [trial.name]
        assert [each.name for each in store.queued_jobs()] == [job.name.trial("2")]
        assert store.tuning_jobs() == [job]
        assert store.count_jobs() == {"QUEUED": 1}
        assert [event.message for event in store.events(str(trial.name))] == ["begins"]
        store.change_job(job.name, lambda old: (replace(old, state="CANCELLED"), []))
        assert store.tuning_jobs() == []

    def test_what_is_not_there_is_not_found(self, store: MetadataStore) -> None:
        with pytest.raises(NotFound):
            store.get_job(JobName("demo", "nothing"))
        with pytest.raises(NotFound):
            store.change_job(JobName("demo", "nothing"), lambda job: (job, []))
        with pytest.raises(NotFound):
            store.get_model(ModelName("demo", "nothing"))
        with pytest.raises(NotFound):
            store.get_operation(OperationName("demo", "nothing"))

    def test_jobs_are_listed_newest_first_in_pages(self, store: MetadataStore) -> None:
        for i in range(7):
            store.create_job(make_job(f"job_{i}"), [])
        store.create_job(make_job("foreign", project="other"), [])
        seen, token = [], ""
        while True:
            page = store.list_jobs("demo", page_size=3, page_token=token)
            seen += [job.name.job_id for job in page.items]
            token = page.next_token
            if not token:
                break
        assert seen == [f"job_{i}" for i in reversed(range(7))]

    def test_a_foreign_page_token_is_refused(self, store: MetadataStore) -> None:
        with pytest.raises(InvalidArgument) as error:
            store.list_jobs("demo", page_size=3, page_token="garbage!")
        assert error.value.field == "page_token"

    def test_jobs_that_have_not_ended(self, store: MetadataStore) -> None:
        states = ("SUCCEEDED", "QUEUED", "FAILED", "RUNNING", "CANCELLING", "CANCELLED", "PREPARING")
        for i, state in enumerate(states):
            store.create_job(make_job(f"job_{i}", state=state), [])
        assert [j.state for j in store.started_jobs()] == ["RUNNING", "CANCELLING", "PREPARING"]
        assert store.queued_jobs() == [make_job("job_1")]
        assert store.count_jobs() == dict.fromkeys(states, 1)

    def test_the_queue_is_read_in_pages(self, store: MetadataStore) -> None:
        for i in range(5):
            store.create_job(make_job(f"job_{i}"), [])
        pages, after = [], 0
        while page := store.queued_jobs(after=after, limit=2):
            pages.append([job.name.job_id for job in page])
            after = page[-1].sequence
        assert pages == [["job_0", "job_1"], ["job_2", "job_3"], ["job_4"]]

    def test_jobs_that_have_moved_since_an_event(self, store: MetadataStore) -> None:
        assert store.newest_event() == 0
        created = NewEvent("state", "created")
        first, second = make_job("job_1"), replace(make_job("job_2"), name=JobName("demo", "job_2", "7"))
        store.create_job(first, [created, NewEvent("log", "a line")])
        before = store.newest_event()
        assert store.moved_jobs(after=0)[0] == [first.name]
        assert store.moved_jobs(after=before) == ([], before)
        store.create_job(second, [created])
        store.change_job(first.name, lambda job: (job, [NewEvent("decision", "wait"), NewEvent("state", "moved")]))
        store.change_job(second.name, lambda job: (job, [NewEvent("state", "moved"), NewEvent("log", "a line")]))
        store.create_model(make_model())
        store.change_model(make_model().name, lambda model: (model, [NewEvent("state", "of a model")]))
        moved, after = store.moved_jobs(after=before)
        assert moved == [second.name, first.name]
        assert store.moved_jobs(after=after) == ([], after)

    def test_a_change_and_its_events_are_one(self, store: MetadataStore) -> None:
        store.create_job(make_job(), [])

        def fail(_job: JobRecord) -> tuple[JobRecord, list[NewEvent]]:
            raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError):
            store.change_job(JobName("demo", "job_1"), fail)
        changed = store.change_job(
            JobName("demo", "job_1"), lambda job: (replace(job, state="RUNNING"), [NewEvent("state", "RUNNING")])
        )
        assert (changed.state, changed.revision) == ("RUNNING", 2)
        assert store.get_job(changed.name) == changed
        assert [e.message for e in store.events(str(changed.name))] == ["RUNNING"]
        assert store.change_job(changed.name, lambda _job: None).revision == 2

    def test_concurrent_changes_are_never_lost(self, store: MetadataStore) -> None:
        store.create_job(make_job(), [])
        name = JobName("demo", "job_1")

        def count() -> None:
            for _ in range(20):
                store.change_job(name, lambda job: (replace(job, priority=job.priority + 1), []))

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get_job(name).priority == 80

    def test_event_times_grow_though_the_clock_stands_still(self, store: MetadataStore, clock: FakeClock) -> None:
        store.create_job(make_job(), [NewEvent("log", str(i)) for i in range(3)])
        clock.advance(-5)
        store.change_job(JobName("demo", "job_1"), lambda job: (job, [NewEvent("log", "3", severity="ERROR")]))
        found = store.events("projects/demo/jobs/job_1")
        assert [e.message for e in found] == ["0", "1", "2", "3"]
        assert all(a.timestamp_ns < b.timestamp_ns for a, b in itertools.pairwise(found))
        assert [e.message for e in store.events(found[0].resource, after=found[1].event_id)] == ["2", "3"]
        assert [e.message for e in store.events(found[0].resource, limit=1)] == ["0"]
        assert store.events(found[0].resource, kinds=["state"]) == []

    def test_a_lease_has_one_holder_until_it_expires(self, store: MetadataStore, clock: FakeClock) -> None:
        store.create_job(make_job(), [])
        name = JobName("demo", "job_1")
        first = store.acquire_lease("jobs", duration_s=10)
        assert first is not None
        assert store.acquire_lease("jobs", duration_s=10) is None
        store.change_job(name, lambda job: (job, []), lease=first)
        clock.advance(11)
        second = store.acquire_lease("jobs", duration_s=10)
        assert second is not None
        with pytest.raises(Aborted):
            store.change_job(name, lambda job: (replace(job, state="FAILED"), []), lease=first)
        assert store.get_job(name).state == "QUEUED"
        store.release_lease(first)
        assert store.acquire_lease("jobs", duration_s=10) is None
        store.release_lease(second)
        assert store.acquire_lease("jobs", duration_s=10) is not None

    def test_the_first_version_becomes_the_default(self, store: MetadataStore) -> None:
        store.create_model(make_model())
        assert store.create_version(*make_version("v1"))[1]
        assert not store.create_version(*make_version("v2"))[1]
        assert store.get_model(ModelName("demo", "iris")).default_version_id == "v1"
        assert [v.name.version_id for v in store.list_versions(ModelName("demo", "iris"), page_size=9).items] == [
            "v1",
            "v2",
        ]
        assert len(store.versions_in_state("CREATING")) == 2
        assert store.count_registry() == (1, 2)

    def test_a_refused_version_leaves_no_operation(self, store: MetadataStore) -> None:
        with pytest.raises(NotFound):
            store.create_version(*make_version())
        store.create_model(make_model())
        version, operation = make_version()
        store.create_version(version, operation)
        with pytest.raises(AlreadyExists):
            store.create_version(
                replace(version, uid="another"), replace(operation, name=OperationName("demo", "another"))
            )
        assert store.list_operations("demo", page_size=9).items == [operation]

    def test_a_version_remembers_its_last_use(self, store: MetadataStore) -> None:
        store.create_model(make_model())
        version, _ = store.create_version(*make_version())
        store.use_version(version.name, 7)
        used = store.get_version(version.name)
        assert (used.last_use_time_ns, used.revision) == (7, version.revision)

    def test_a_model_with_versions_stays(self, store: MetadataStore) -> None:
        store.create_model(make_model())
        version, operation = make_version()
        store.create_version(version, operation)
        with pytest.raises(FailedPrecondition):
            store.delete_model(version.name.model)
        store.delete_version(version.name, replace(operation, end_time_ns=5))
        assert store.get_model(version.name.model).default_version_id == ""
        store.delete_model(version.name.model)
        with pytest.raises(NotFound):
            store.get_model(version.name.model)

    def test_pending_operations_are_those_without_an_end(self, store: MetadataStore) -> None:
        store.create_model(make_model())
        version, operation = make_version()
        store.create_version(version, operation)
        assert store.pending_operations() == [operation]
        ended = replace(operation, end_time_ns=9, response={"a": [1]}, error=None)
        store.change_version(version.name, lambda v: (replace(v, state="READY"), []), operation=ended)
        assert store.pending_operations() == []
        assert store.get_operation(operation.name) == ended
        assert store.get_version(version.name).state == "READY"

    def test_a_policy_belongs_to_its_resource_and_goes_with_it(self, store: MetadataStore) -> None:
        store.create_model(make_model())
        resource = "projects/demo/models/iris"
        assert store.get_policy(resource) == ({}, 0)
        store.change_policy(resource, lambda policy, revision: {**policy, "version": 1, "seen": revision})
        store.change_policy(resource, lambda policy, revision: {**policy, "seen": revision})
        assert store.get_policy(resource) == ({"version": 1, "seen": 1}, 2)
        store.delete_model(ModelName("demo", "iris"))
        assert store.get_policy(resource) == ({}, 0)
