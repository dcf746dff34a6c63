"""The log of a job: the service's lines (events of the metadata store) and the replicas' (segments on disk), merged.

Called by the engine's API; reading changes nothing and needs no running replica.
"""

from __future__ import annotations

from pathlib import Path

from enginehouse.core.names import JobName
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.run import Run, replica_directory
from enginehouse.metadata.base import EventStore, MetadataStore
from enginehouse.replica.spec import LOG_FILE
from enginehouse.telemetry.joblog import JobLog, LogStream
from enginehouse.telemetry.segments import LogRecord, SegmentStream

SERVICE_TASK = "service"


class ServiceLogStream:
    """The "log" events of a job as a `telemetry.joblog.LogStream`; an offset is the id of the last event read."""

    name = SERVICE_TASK

    def __init__(self, store: EventStore, job: JobName) -> None:
        self._store = store
        self._resource = str(job)

    def read(self, offset: int, limit: int) -> tuple[list[LogRecord], int]:
        found = self._store.events(self._resource, after=offset, limit=limit, kinds=("log",))
        records = [
            LogRecord(
                timestamp_ns=event.timestamp_ns,
                insert_id=f"{event.event_id:020d}",
                severity=event.severity,
                message=event.message,
                task_name=SERVICE_TASK,
            )
            for event in found
        ]
        return records, found[-1].event_id if found else offset

    def seek(self, timestamp_ns: int) -> int:
        """The service says little: reading it from its start costs nothing."""
        return 0


def job_streams(store: MetadataStore, jobs_dir: Path, name: JobName) -> list[LogStream]:
    """Everything that says something about a job: the service, its replicas, and what programs wrote by the logs API.

    Raises:
        NotFound: no such job.
    """
    job = store.get_job(name)
    launches = Run.from_json(job.run).launches
    segments = [
        SegmentStream(path / LOG_FILE, replica.task_name, name=path.name)
        for replica in Plan.from_json(job.plan).replicas
        for launch in range(launches.get(replica.task_name, 0) + 1)
        for path in [replica_directory(jobs_dir, name, replica.task_name, launch)]
    ]
    written = SegmentStream(written_log_path(jobs_dir, name), "", name="written")
    return [ServiceLogStream(store, name), *segments, written]


def written_log_path(jobs_dir: Path, name: JobName) -> Path:
    """Where entries lie that programs write by the logs API."""
    return jobs_dir / name.project / name.job_id / "written.jsonl"


def job_log(store: MetadataStore, jobs_dir: Path, name: JobName) -> JobLog:
    """The whole log of a job, live.

    Raises:
        NotFound: no such job.
    """
    return JobLog(job_streams(store, jobs_dir, name))
