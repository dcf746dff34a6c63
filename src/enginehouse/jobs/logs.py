"""The log of a job: the service's lines (events of the metadata store) and the replicas' (segments on disk), merged.

Called by the engine's API; reading changes nothing and needs no running replica.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from enginehouse.core.names import JobName
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.run import launch_directories
from enginehouse.metadata.base import EventStore, MetadataStore
from enginehouse.metadata.records import JobRecord
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

    Of a tuning job all that its trials say, too, labelled with their ids.

    Raises:
        NotFound: no such job.
    """
    job = store.get_job(name)
    written = SegmentStream(written_log_path(jobs_dir, name), "", name="written")
    if not job.is_tuning:
        return [*_own_streams(store, jobs_dir, job), written]
    of_trials = (
        _TrialStream(stream, trial.name.trial_id)
        for trial in store.trials_of(name)
        for stream in _own_streams(store, jobs_dir, trial)
    )
    return [ServiceLogStream(store, name), *of_trials, written]


def _own_streams(store: MetadataStore, jobs_dir: Path, job: JobRecord) -> list[LogStream]:
    segments = [
        SegmentStream(path / LOG_FILE, replica.task_name, name=path.name)
        for replica in Plan.from_json(job.plan).replicas
        for path in launch_directories(jobs_dir, job, replica.task_name)
    ]
    return [ServiceLogStream(store, job.name), *segments]


class _TrialStream:
    """A stream of a trial, whose records say so."""

    def __init__(self, stream: LogStream, trial_id: str) -> None:
        self.name = f"{trial_id}/{stream.name}"
        self._stream = stream
        self._trial_id = trial_id

    def read(self, offset: int, limit: int) -> tuple[list[LogRecord], int]:
        records, offset = self._stream.read(offset, limit)
        labelled = {"trial_id": self._trial_id}
        return [replace(record, fields={**record.fields, **labelled}) for record in records], offset

    def seek(self, timestamp_ns: int) -> int:
        return self._stream.seek(timestamp_ns)


def written_log_path(jobs_dir: Path, name: JobName) -> Path:
    """Where entries lie that programs write by the logs API."""
    return jobs_dir / name.project / name.job_id / "written.jsonl"


def job_log(store: MetadataStore, jobs_dir: Path, name: JobName) -> JobLog:
    """The whole log of a job, live.

    Raises:
        NotFound: no such job.
    """
    return JobLog(job_streams(store, jobs_dir, name))
