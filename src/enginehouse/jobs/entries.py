"""The logs of jobs and versions as Cloud Logging's entries: listed by filter, and written by user code.

In: requests of logging v2. Out: entries in the order that clients need: gcloud compares timestamps and insert ids as
text and drops what does not grow. Called by `api/logging`.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginehouse.core.clock import Clock
from enginehouse.core.errors import InvalidArgument, NotFound
from enginehouse.core.filters import ExactText, Filter, Lookup, OwnOrder, lookup_in, parse_filter
from enginehouse.core.names import JobName, VersionName
from enginehouse.core.units import format_time, parse_time_ns
from enginehouse.jobs.logs import SERVICE_TASK, job_streams, written_log_path
from enginehouse.metadata.base import MetadataStore
from enginehouse.schemas.logging import (
    ListLogEntriesRequest,
    ListLogEntriesResponse,
    LogEntry,
    MonitoredResource,
    WriteLogEntriesRequest,
)
from enginehouse.schemas.wire import to_builtins
from enginehouse.telemetry.joblog import JobLog, LogStream
from enginehouse.telemetry.segments import SEVERITIES, LogRecord, LogWriter, SegmentStream
from enginehouse.telemetry.served import ACCESS, CONSOLE, version_log_path

JOB_TYPE, VERSION_TYPE = "ml_job", "cloudml_model_version"
"""Resource types of Cloud Logging."""
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_MAX_JOBS = 200
_MAX_MODELS = 1000
_OWNER = "enginehouse_owner"
_READ_AT_ONCE = 1000
_MAX_READ = 50_000
_SEVERITY_BY_NUMBER = {0: "DEFAULT", 100: "DEBUG", 200: "INFO", 300: "NOTICE", 400: "WARNING", 500: "ERROR"} | {
    600: "CRITICAL",
    700: "ALERT",
    800: "EMERGENCY",
}


class LogEntries:
    """The entries of all jobs and versions. Thread-safe.

    Args:
        jobs_dir: where the replicas' segments are.
        versions_logs_dir: where those of `telemetry.served` are.
    """

    def __init__(self, store: MetadataStore, jobs_dir: Path, versions_logs_dir: Path, clock: Clock) -> None:
        self._store = store
        self._jobs_dir = jobs_dir
        self._versions_logs_dir = versions_logs_dir
        self._clock = clock
        self._writing = threading.Lock()

    def find(self, request: ListLogEntriesRequest) -> ListLogEntriesResponse:
        """Entries that pass the filter, a page of them.

        A job that the filter names and that does not exist is an error at once, so that who streams its log ends.

        Raises:
            InvalidArgument: the filter, the order or the page token can't be read.
            NotFound: the filter names one job only, and there is none of that id.
        """
        projects = _projects(request)
        wanted = parse_filter(request.filter)
        page_size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        if request.order_by.replace(" asc", "") not in ("", "timestamp", "timestamp desc"):
            raise InvalidArgument("Order by 'timestamp asc' or 'timestamp desc'.", field="order_by")
        if page_size < 0:
            raise InvalidArgument("A page size is positive.", field="page_size")
        log = self._open(projects, wanted)
        if request.order_by.endswith(" desc"):
            return self._newest_first(log, wanted, page_size, request.page_token)
        cursor = request.page_token or log.cursor_at(wanted.since_ns)
        entries, cursor, more = _scan(log, wanted, cursor, page_size)
        return ListLogEntriesResponse(entries=entries, next_page_token=cursor if more else "")

    def _newest_first(self, log: JobLog, wanted: Filter, page_size: int, page_token: str) -> ListLogEntriesResponse:
        """All entries are read and turned round; a token counts those that were given before."""
        skip = int(page_token) if page_token.isdecimal() else 0
        entries, _cursor, _more = _scan(log, wanted, log.cursor_at(wanted.since_ns), _MAX_READ)
        entries.reverse()
        token = str(skip + page_size) if len(entries) > skip + page_size else ""
        return ListLogEntriesResponse(entries=entries[skip : skip + page_size], next_page_token=token)

    def _open(self, projects: list[str], wanted: Filter) -> JobLog:
        """The merged log of all jobs and versions that the filter may mean."""
        types = wanted.values.get("resource.type")
        streams: list[LogStream] = []
        for project in projects:
            if types is None or types - {VERSION_TYPE}:
                streams += self._job_streams(project, wanted)
            if types is None or VERSION_TYPE in types:
                streams += self._version_streams(project, wanted)
        return JobLog(streams)

    def _job_streams(self, project: str, wanted: Filter) -> list[LogStream]:
        return [
            _OwnedStream(stream, name)
            for name in self._jobs_of(project, wanted.values.get("resource.labels.job_id"))
            for stream in job_streams(self._store, self._jobs_dir, name)
        ]

    def _version_streams(self, project: str, wanted: Filter) -> list[LogStream]:
        if "resource.labels.job_id" in wanted.values:
            return []
        model_ids = wanted.values.get("resource.labels.model_id")
        models = self._store.list_models(project, page_size=_MAX_MODELS).items
        return [
            _OwnedStream(
                SegmentStream(version_log_path(self._versions_logs_dir, version.uid, kind), kind), version.name
            )
            for model in models
            if model_ids is None or model.name.model_id in model_ids
            for version in self._store.list_versions(model.name, page_size=_MAX_MODELS).items
            for kind in (ACCESS, CONSOLE)
        ]

    def _jobs_of(self, project: str, job_ids: frozenset[str] | None) -> list[JobName]:
        if job_ids is None:
            page = self._store.list_jobs(project, page_size=_MAX_JOBS)
            return [job.name for job in page.items]
        names = [JobName(project, job_id) for job_id in sorted(job_ids)]
        if len(names) == 1:
            self._store.get_job(names[0])
            return names
        return [name for name in names if self._exists(name)]

    def _exists(self, name: JobName) -> bool:
        try:
            self._store.get_job(name)
        except NotFound:
            return False
        return True

    def write(self, request: WriteLogEntriesRequest, *, job: JobName | None = None) -> None:
        """Add a program's own entries to the log of its job.

        Args:
            job: whose they are when the entries do not say so.

        Raises:
            InvalidArgument: an entry names no job and `job` is None, or has a broken timestamp.
            NotFound: there is no such job.
        """
        by_job: dict[JobName, list[tuple[LogEntry, str]]] = {}
        for index, entry in enumerate(request.entries):
            log_name = entry.log_name or request.log_name
            resource = entry.resource or request.resource or MonitoredResource()
            labels = {**request.labels, **entry.labels}
            name = _job_of(log_name, resource, labels) or job
            if name is None:
                raise InvalidArgument(
                    "Name the job in resource.labels.job_id, so that the entry finds its log.",
                    field=f"entries[{index}].resource",
                )
            entry.labels = labels
            by_job.setdefault(name, []).append((entry, log_name.rpartition("/")[2]))
        for name, entries in by_job.items():
            self._store.get_job(name)
            if not request.dry_run:
                self._append(name, entries)

    def _append(self, name: JobName, entries: list[tuple[LogEntry, str]]) -> None:
        path = written_log_path(self._jobs_dir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing:
            writer = LogWriter(path, "", self._clock)
            try:
                for entry, log_id in entries:
                    message, fields = _content(entry)
                    fields |= {"labels": entry.labels, "log_id": log_id}
                    writer.append(
                        _severity(entry.severity),
                        message,
                        fields=fields,
                        timestamp_ns=parse_time_ns(entry.timestamp) if entry.timestamp else None,
                    )
            finally:
                writer.close()


def _scan(log: JobLog, wanted: Filter, cursor: str, page_size: int) -> tuple[list[LogEntry], str, bool]:
    """Read from `cursor` on until `page_size` entries pass.

    Returns:
        The entries, the cursor behind the last one looked at, and whether there may be more.
    """
    passing: list[LogEntry] = []
    read = 0
    while read < _MAX_READ:
        limit = min(_READ_AT_ONCE, page_size - len(passing))
        records, cursor = log.read(cursor, limit)
        read += len(records)
        for record in records:
            entry = _entry(record)
            if wanted.matches(_lookup(entry)):
                passing.append(entry)
        if len(records) < limit:
            return passing, cursor, False
        if len(passing) >= page_size:
            break
    return passing, cursor, True


def _entry(record: LogRecord) -> LogEntry:
    """A record of an `_OwnedStream` in Cloud Logging's shape: the service's lines as text, a replica's as JSON."""
    fields = dict(record.fields)
    owner: JobName | VersionName = fields.pop(_OWNER)
    time = format_time(record.timestamp_ns, digits=9)
    entry = LogEntry(timestamp=time, receive_timestamp=time, severity=record.severity, insert_id=record.insert_id)
    if isinstance(owner, VersionName):
        _tell_version(entry, record, owner, fields)
    else:
        _tell_job(entry, record, owner, fields)
    return entry


def _tell_version(entry: LogEntry, record: LogRecord, version: VersionName, fields: dict[str, Any]) -> None:
    entry.log_name = f"projects/{version.project}/logs/ml.googleapis.com%2F{record.task_name}"
    labels = {"model_id": version.model_id, "version_id": version.version_id, "project_id": version.project}
    entry.resource = MonitoredResource(type=VERSION_TYPE, labels=labels)
    entry.http_request = fields.get("http")
    entry.text_payload = record.message


def _tell_job(entry: LogEntry, record: LogRecord, job: JobName, fields: dict[str, Any]) -> None:
    task_name = record.task_name or fields.get("labels", {}).get("task_name", "")
    labels = {"ml.googleapis.com/job_id": job.job_id, "ml.googleapis.com/task_name": task_name}
    labels |= {"ml.googleapis.com/trial_id": fields.pop("trial_id", "")}
    labels |= fields.pop("labels", {})
    log_id = fields.pop("log_id", "") or (
        f"ml.googleapis.com%2F{job.job_id}" if record.task_name == SERVICE_TASK else task_name or "user"
    )
    entry.log_name = f"projects/{job.project}/logs/{log_id}"
    own = {"job_id": job.job_id, "project_id": job.project, "task_name": task_name}
    entry.resource = MonitoredResource(type=JOB_TYPE, labels=own)
    entry.labels = labels
    if record.task_name == SERVICE_TASK:
        entry.text_payload = record.message
    else:
        entry.json_payload = {"message": record.message, "levelname": record.severity, **fields}


def _lookup(entry: LogEntry) -> Lookup:
    value = to_builtins(entry)
    value["insertId"] = ExactText(entry.insert_id)
    value["severity"] = _Severity(entry.severity)
    return lookup_in(value)


class _Severity(OwnOrder, str):
    """Compares by rank: `severity>=WARNING` has ERROR, too."""

    def sides(self, wanted: str) -> tuple[int, int]:
        ranks = {name: rank for rank, name in enumerate(SEVERITIES)}
        return ranks.get(self.upper(), 0), ranks.get(wanted.upper(), -1)


class _OwnedStream:
    """A stream whose records say whose they are; all streams share one merged log by it."""

    def __init__(self, stream: LogStream, owner: JobName | VersionName) -> None:
        self.name = f"{owner}/{stream.name}"
        self._stream = stream
        self._owner = owner

    def read(self, offset: int, limit: int) -> tuple[list[LogRecord], int]:
        records, offset = self._stream.read(offset, limit)
        return [replace(record, fields={**record.fields, _OWNER: self._owner}) for record in records], offset

    def seek(self, timestamp_ns: int) -> int:
        return self._stream.seek(timestamp_ns)


def _projects(request: ListLogEntriesRequest) -> list[str]:
    names = [*request.resource_names, *(f"projects/{project}" for project in request.project_ids)]
    projects = [name.split("/")[1] for name in names if name.startswith("projects/")]
    if not projects:
        raise InvalidArgument("Name a project, such as projects/my-project.", field="resource_names")
    return list(dict.fromkeys(projects))


def _job_of(log_name: str, resource: MonitoredResource, labels: dict[str, str]) -> JobName | None:
    job_id = resource.labels.get("job_id") or labels.get("ml.googleapis.com/job_id") or labels.get("job_id")
    project = resource.labels.get("project_id") or [*log_name.split("/"), ""][1]
    return JobName(project, job_id) if job_id and project else None


def _content(entry: LogEntry) -> tuple[str, dict[str, object]]:
    payload = dict(entry.json_payload or {})
    message = payload.pop("message", None)
    return (str(message), payload) if message is not None else (entry.text_payload, payload)


def _severity(given: str | int) -> str:
    text = _SEVERITY_BY_NUMBER.get(given, "DEFAULT") if isinstance(given, int) else given.upper()
    return text if text in SEVERITIES else "DEFAULT"
