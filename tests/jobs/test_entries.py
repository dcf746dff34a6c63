"""The logs API as gcloud and google-cloud-logging use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.names import JobName
from enginehouse.jobs.entries import LogEntries
from enginehouse.jobs.run import replica_directory
from enginehouse.metadata.records import NewEvent
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.schemas.logging import ListLogEntriesRequest, LogEntry, MonitoredResource, WriteLogEntriesRequest
from enginehouse.telemetry.segments import LogWriter
from enginehouse.testing.clock import FakeClock
from enginehouse.testing.metadata import make_job

PLAN = {
    "replicas": [{"role": "master", "index": 0}],
    "runtime_version": "scikit-learn-1.9",
    "python_version": "3.11",
    "runtime_reason": "",
    "chief_name": "chief",
}
# What gcloud sends, verbatim but for the job and the times.
GCLOUD = (
    '(resource.type="ml_job" OR resource.type="cloudml_job") AND resource.labels.job_id="{job}" AND {since} AND '
    'timestamp<"2027-01-01T00:00:00.000000Z"'
)
BEGIN = 'timestamp>="1970-01-01T01:00:00.000000000Z"'


class World:
    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.store = SqlMetadataStore.open_sqlite(directory / "m.sqlite3", self.clock)
        self.jobs_dir = directory / "jobs"
        self.entries = LogEntries(self.store, self.jobs_dir, directory / "servers", self.clock)
        for job_id in ("job_1", "job_2"):
            self.add_job(job_id)

    def add_job(self, job_id: str) -> None:
        job = make_job(job_id)
        self.store.create_job(
            type(job)(**{**job.__dict__, "plan": PLAN}),
            [NewEvent("log", f"{job_id} is queued."), NewEvent("state", "x")],
        )
        path = replica_directory(self.jobs_dir, JobName("demo", job_id), "master-replica-0") / "log.jsonl"
        path.parent.mkdir(parents=True)
        writer = LogWriter(path, "master-replica-0", self.clock)
        for i in range(5):
            self.clock.advance(1)
            writer.append("ERROR" if i == 3 else "INFO", f"{job_id} line {i}", fields={"lineno": i})
        writer.close()

    def list(self, filter: str, **fields: object) -> list[LogEntry]:
        request = ListLogEntriesRequest(resource_names=["projects/demo"], filter=filter, **fields)  # type: ignore[arg-type]
        return self.entries.find(request).entries


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


def messages(entries: list[LogEntry]) -> list[str]:
    return [entry.text_payload or (entry.json_payload or {})["message"] for entry in entries]


def test_gclouds_polls_see_every_line_once_and_in_growing_order(world: World) -> None:
    found = world.list(GCLOUD.format(job="job_1", since=BEGIN), order_by="timestamp asc", page_size=1000)
    assert messages(found) == ["job_1 is queued.", *(f"job_1 line {i}" for i in range(5))]
    keys = [(entry.timestamp, entry.insert_id) for entry in found]
    assert keys == sorted(set(keys))
    assert {len(entry.timestamp) for entry in found} == {30}
    last = found[2]
    later = world.list(GCLOUD.format(job="job_1", since=f'timestamp>="{last.timestamp}"'))
    assert later == found[2:]
    after = f'((timestamp="{last.timestamp}" AND insertId>"{last.insert_id}") OR timestamp>"{last.timestamp}")'
    assert world.list(GCLOUD.format(job="job_1", since=after)) == found[3:]


def test_entries_have_the_shape_that_clients_read(world: World) -> None:
    service, *_rest, last = world.list(GCLOUD.format(job="job_1", since=BEGIN))
    assert service.resource == MonitoredResource(
        type="ml_job", labels={"job_id": "job_1", "project_id": "demo", "task_name": "service"}
    )
    assert (service.text_payload, service.json_payload) == ("job_1 is queued.", None)
    assert last.json_payload == {"message": "job_1 line 4", "levelname": "INFO", "lineno": 4}
    assert last.labels["ml.googleapis.com/task_name"] == "master-replica-0"
    assert last.log_name == "projects/demo/logs/master-replica-0"


@pytest.mark.parametrize(
    ("extra", "count"),
    [
        ('(resource.labels.task_name="master-replica-0" OR labels.task_name="master-replica-0")', 5),
        ("severity>=WARNING", 1),
        ("severity=ERROR", 1),
        ('jsonPayload.message:"line 4"', 0),
        ('jsonPayload.message:"*line 4"', 1),
        ("jsonPayload.lineno>2", 2),
        ('textPayload:"*queued*"', 1),
    ],
)
def test_filters_on_parts_of_entries(world: World, extra: str, count: int) -> None:
    assert len(world.list(f'resource.labels.job_id="job_1" AND {extra}')) == count


def test_pages_join_without_gaps_also_over_several_jobs(world: World) -> None:
    whole = world.list('resource.type="ml_job"', page_size=1000)
    assert len(whole) == 12
    seen, token = [], ""
    while True:
        answer = world.entries.find(
            ListLogEntriesRequest(resource_names=["projects/demo"], page_size=5, page_token=token)
        )
        seen += answer.entries
        token = answer.next_page_token
        if not token:
            break
    assert seen == whole
    newest = world.list("", order_by="timestamp desc", page_size=3)
    assert newest == whole[:-4:-1]


def test_what_is_not_there_or_not_understood(world: World) -> None:
    with pytest.raises(NotFound):
        world.list(GCLOUD.format(job="nothing", since=BEGIN))
    assert world.list('resource.labels.job_id=("job_1" OR "nothing") AND severity=ERROR')
    with pytest.raises(InvalidArgument) as error:
        world.list("a::b")
    assert error.value.field == "filter"
    with pytest.raises(InvalidArgument) as error:
        world.list("", order_by="severity")
    assert error.value.field == "order_by"
    with pytest.raises(InvalidArgument) as error:
        world.entries.find(ListLogEntriesRequest())
    assert error.value.field == "resource_names"


def test_what_programs_write_lands_in_their_jobs_log(world: World) -> None:
    world.entries.write(
        WriteLogEntriesRequest(
            log_name="projects/demo/logs/my-log",
            resource=MonitoredResource(type="ml_job", labels={"job_id": "job_1", "task_name": "master-replica-0"}),
            labels={"phase": "eval"},
            entries=[
                LogEntry(json_payload={"message": "hello", "step": 3}, severity="warning"),
                LogEntry(text_payload="plain", severity=500),
            ],
        )
    )
    first, second = world.list('resource.labels.job_id="job_1" AND labels.phase="eval"')
    assert (first.severity, first.json_payload) == (
        "WARNING",
        {"message": "hello", "levelname": "WARNING", "step": 3},
    )
    assert (second.severity, messages([second])) == ("ERROR", ["plain"])
    assert first.log_name == "projects/demo/logs/my-log"
    with pytest.raises(NotFound):
        world.entries.write(
            WriteLogEntriesRequest(
                resource=MonitoredResource(labels={"job_id": "nothing", "project_id": "demo"}),
                entries=[LogEntry(text_payload="x")],
            )
        )
    with pytest.raises(InvalidArgument) as error:
        world.entries.write(WriteLogEntriesRequest(entries=[LogEntry(text_payload="x")]))
    assert error.value.field == "entries[0].resource"
