"""Resource names: the one place that parses, builds and judges them.

projects/P
projects/P/jobs/J
projects/P/jobs/J/trials/T
projects/P/models/M
projects/P/models/M/versions/V
projects/P/operations/O
projects/P/locations/L/operations/O
projects/P/locations/L/studies/S
projects/P/locations/L/studies/S/trials/N
gs://BUCKET/OBJECT
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from enginehouse.core.errors import InvalidArgument

_PROJECT = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]|[0-9]{1,20}|[a-z0-9.-]+:[a-z][a-z0-9-]{4,28}[a-z0-9]")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_JOB = re.compile(r"projects/(?P<project>[^/]+)/jobs/(?P<job_id>[^/]+)(?:/trials/(?P<trial_id>[^/]+))?")
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")

MAX_OBJECT_NAME_BYTES = 1024


def project_number(project: str) -> int:
    """A stable 12-digit number for a project id, where an answer must have one."""
    return 100_000_000_000 + zlib.crc32(project.encode())


@dataclass(frozen=True, order=True)
class JobName:
    """`projects/P/jobs/J`, or one trial of a tuning job: `projects/P/jobs/J/trials/T`."""

    project: str
    job_id: str
    trial_id: str = ""

    def trial(self, trial_id: str) -> JobName:
        return JobName(self.project, self.job_id, trial_id)

    @property
    def job(self) -> JobName:
        """The job itself, or the one that the trial is of."""
        return JobName(self.project, self.job_id)

    @classmethod
    def parse(cls, resource: str) -> JobName | None:
        """The name that a resource name tells; None for one of something else."""
        found = _JOB.fullmatch(resource)
        return cls(**found.groupdict("")) if found else None

    def __str__(self) -> str:
        trial = f"/trials/{self.trial_id}" if self.trial_id else ""
        return f"projects/{self.project}/jobs/{self.job_id}{trial}"


@dataclass(frozen=True, order=True)
class ModelName:
    """`projects/P/models/M`."""

    project: str
    model_id: str

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model_id}"


@dataclass(frozen=True, order=True)
class VersionName:
    """`projects/P/models/M/versions/V`."""

    project: str
    model_id: str
    version_id: str

    @property
    def model(self) -> ModelName:
        return ModelName(self.project, self.model_id)

    def __str__(self) -> str:
        return f"projects/{self.project}/models/{self.model_id}/versions/{self.version_id}"


@dataclass(frozen=True, order=True)
class OperationName:
    """`projects/P/operations/O`."""

    project: str
    operation_id: str

    def __str__(self) -> str:
        return f"projects/{self.project}/operations/{self.operation_id}"


@dataclass(frozen=True, order=True)
class LocationOperationName:
    """`projects/P/locations/L/operations/O`."""

    project: str
    location: str
    operation_id: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/operations/{self.operation_id}"


@dataclass(frozen=True, order=True)
class StudyName:
    """`projects/P/locations/L/studies/S`."""

    project: str
    location: str
    study_id: str

    def trial(self, trial_id: int) -> TrialName:
        return TrialName(self.project, self.location, self.study_id, trial_id)

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/studies/{self.study_id}"


@dataclass(frozen=True, order=True)
class TrialName:
    """`projects/P/locations/L/studies/S/trials/N`, N from 1."""

    project: str
    location: str
    study_id: str
    trial_id: int

    @property
    def study(self) -> StudyName:
        return StudyName(self.project, self.location, self.study_id)

    def __str__(self) -> str:
        return f"{self.study}/trials/{self.trial_id}"


@dataclass(frozen=True, order=True)
class ObjectUri:
    """`gs://BUCKET/OBJECT`; `name` is empty for the bucket itself and ends with `/` for a folder."""

    bucket: str
    name: str

    @classmethod
    def parse(cls, uri: str, *, field: str = "uri") -> ObjectUri:
        """Take `gs://bucket/some/object` apart.

        Raises:
            InvalidArgument: naming `field`, when the text is no gs:// URI.
        """
        if not uri.startswith("gs://"):
            raise InvalidArgument(f"{uri!r} is not a Cloud Storage path; write gs://BUCKET/OBJECT.", field=field)
        bucket, _, name = uri[len("gs://") :].partition("/")
        check_bucket_id(bucket, field=field)
        if name:
            check_object_name(name, field=field)
        return cls(bucket, name)

    def join(self, *parts: str) -> ObjectUri:
        """A URI below this one."""
        name = "/".join([self.name.rstrip("/"), *(part.strip("/") for part in parts)])
        return ObjectUri(self.bucket, name.lstrip("/"))

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}" if self.name else f"gs://{self.bucket}"


def check_project_id(project: str, *, field: str = "parent") -> str:
    """`project` itself if it may name a project."""
    if not _PROJECT.fullmatch(project):
        raise InvalidArgument(
            f"{project!r} is not a project id: use lower-case letters, digits and hyphens, starting with a letter.",
            field=field,
        )
    return project


def check_resource_id(text: str, *, kind: str, field: str) -> str:
    """`text` itself if it may name a job, model or version.

    Args:
        kind: the word for the message: "job", "model", "version".
        field: snake_case path of the field that holds it.
    """
    if not _ID.fullmatch(text):
        raise InvalidArgument(
            f"A {kind} id should contain only mixed-case letters, numbers and underscores, start with a letter and "
            f"have at most 128 characters; {text!r} does not.",
            field=field,
        )
    return text


def check_study_id(text: str, *, field: str = "study_id") -> str:
    """`text` itself if it may name a study."""
    if not _STUDY.fullmatch(text):
        raise InvalidArgument(
            f"A study id has 1 to 128 letters, digits, '_' and '-' and starts with a letter or digit; {text!r} does "
            "not.",
            field=field,
        )
    return text


IMAGE_RULE = "An image's name begins with a letter or digit and has letters, digits and '._/:@+-' alone."


def is_image(text: str) -> bool:
    """Whether `text` may name a container image, and can't pass for an option of podman or docker."""
    return _IMAGE.fullmatch(text) is not None


def check_bucket_id(bucket: str, *, field: str = "bucket") -> str:
    """`bucket` itself if it may name a bucket: 3 to 222 of a-z, 0-9, `-`, `_`, `.`, no `..`."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidArgument(
            f"{bucket!r} is not a bucket name: use 3 to 63 lower-case letters, digits, '-', '_' and '.', starting "
            "and ending with a letter or digit.",
            field=field,
        )
    return bucket


def check_object_name(name: str, *, field: str = "object") -> str:
    """`name` itself if it may name an object: 1 to 1024 bytes of UTF-8, no CR, LF or NUL, not `.` or `..`."""
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument("An object name must be valid UTF-8.", field=field) from None
    if not 1 <= size_bytes <= MAX_OBJECT_NAME_BYTES:
        raise InvalidArgument(
            f"An object name has 1 to {MAX_OBJECT_NAME_BYTES} bytes of UTF-8; this one has {size_bytes}.", field=field
        )
    if name in (".", "..") or any(ch in name for ch in "\r\n\0"):
        raise InvalidArgument("An object name can't be '.' or '..' or hold a CR, LF or NUL.", field=field)
    return name


def check_labels(labels: dict[str, str], *, field: str = "labels") -> dict[str, str]:
    """`labels` itself if every key and value may be one (64 at most, lower case)."""
    if len(labels) > 64:
        raise InvalidArgument("A resource has at most 64 labels.", field=field)
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise InvalidArgument(
                f"The label key {key!r} should start with a lower-case letter and hold only lower-case letters, "
                "digits, '_' and '-', 63 at most.",
                field=field,
            )
        if not _LABEL_VALUE.fullmatch(value):
            raise InvalidArgument(
                f"The value {value!r} of label {key!r} should hold only lower-case letters, digits, '_' and '-', "
                "63 at most.",
                field=field,
            )
    return labels
