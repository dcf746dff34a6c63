"""Judges batch prediction jobs before anything is queued, and plans them.

In: a PredictionInput. Out: a `Plan` with one replica, whose program (enginehouse/batch) starts its workers itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from enginehouse.batch.patterns import Pattern
from enginehouse.core.errors import EngineError, FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from enginehouse.core.names import ObjectUri
from enginehouse.jobs.plan import Plan, PredictionModel, ReplicaPlan
from enginehouse.modelserver import CUSTOM
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import PredictionInput
from enginehouse.storage.base import ObjectStore

DEFAULT_MAX_WORKERS = 10
FIELD = "prediction_input"
_INPUT_FORMATS = ("JSON", "TEXT", "CSV", "TF_RECORD", "TF_RECORD_GZIP")
_OUTPUT_FORMATS = ("DATA_FORMAT_UNSPECIFIED", "JSON", "TEXT", "CSV")
_HOST_CPUS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class FoundModel:
    """A model that can be predicted with: as in `PredictionModel`, and the runtime that it was made for.

    `runtime_version` is empty where a model at a URI leaves it open.
    """

    name: str
    framework: str
    runtime_version: str
    python_version: str | None
    directory: str = ""
    uri: str = ""
    package_uris: tuple[str, ...] = ()


class Models(Protocol):
    """What knows models and versions; the registry."""

    def version(self, project: str, model_id: str, version_id: str | None) -> FoundModel:
        """A version that is READY; the model's default one for None.

        Raises:
            NotFound: no such model or version.
            FailedPrecondition: it is not READY, or the model has none.
        """
        ...

    def at(self, uri: ObjectUri) -> FoundModel:
        """The model in a gs:// directory.

        Raises:
            FailedPrecondition: there is none.
        """
        ...


class PredictionValidator:
    """Checks against the models, the runtimes and the objects in the buckets. Thread-safe."""

    def __init__(self, catalogue: Catalogue, storage: ObjectStore, models: Models) -> None:
        self._catalogue = catalogue
        self._storage = storage
        self._models = models

    def plan(self, project: str, spec: PredictionInput) -> Plan:
        """The plan of a good job.

        Raises:
            InvalidArgument: what is wrong in the request itself; all wrong fields at once.
            FailedPrecondition: what it needs and is not there: buckets, inputs, a ready version.
            NotFound: the model or version does not exist.
        """
        violations = [FieldViolation(f"{FIELD}.{field}", text) for field, text in _wrong_fields(spec)]
        if violations:
            raise InvalidArgument(violations=violations)
        found = self._model(project, spec)
        self._check_places(spec)
        runtime = spec.runtime_version or found.runtime_version or self._newest_runtime(found.framework)
        python = found.python_version if runtime == found.runtime_version else None
        resolution = self._catalogue.resolve(runtime, python, field=FIELD)
        if not found.framework.startswith(CUSTOM) and found.framework not in resolution.runtime.frameworks:
            raise FailedPrecondition(
                f"The runtime {resolution.runtime.name} has no {found.framework}, which {found.name} needs.",
                field=f"{FIELD}.runtime_version",
            )
        workers = min(spec.max_worker_count or DEFAULT_MAX_WORKERS, _HOST_CPUS)
        return Plan(
            replicas=(ReplicaPlan("master", 0, cpus=workers),),
            runtime_version=resolution.runtime.name,
            python_version=resolution.python_version,
            runtime_reason=resolution.reason,
            chief_name="master",
            model=PredictionModel(
                found.name, found.framework, found.directory, found.uri, found.package_uris, workers
            ),
        )

    def _model(self, project: str, spec: PredictionInput) -> FoundModel:
        if spec.uri:
            uri = ObjectUri.parse(spec.uri, field=f"{FIELD}.uri")
            return self._models.at(uri)
        field, name = ("version_name", spec.version_name) if spec.version_name else ("model_name", spec.model_name)
        parts = name.split("/")
        if parts[::2] == ["projects", "models", "versions"][: len(parts) // 2] and len(parts) == (
            6 if field == "version_name" else 4
        ):
            return self._models.version(parts[1], parts[3], parts[5] if len(parts) == 6 else None)
        form = "projects/PROJECT/models/MODEL" + ("/versions/VERSION" if field == "version_name" else "")
        raise InvalidArgument(f"{name!r} is no such name; write {form}.", field=f"{FIELD}.{field}")

    def _check_places(self, spec: PredictionInput) -> None:
        """The buckets are there, and each input path has at least one object."""
        violations: list[FieldViolation] = []
        for field, texts in (("input_paths", spec.input_paths), ("output_path", [spec.output_path])):
            for text in texts:
                try:
                    self._check_place(text, f"{FIELD}.{field}", must_exist=field == "input_paths")
                except EngineError as error:
                    violations += error.violations
        if violations:
            raise FailedPrecondition(violations=violations)

    def _check_place(self, text: str, field: str, *, must_exist: bool) -> None:
        pattern = Pattern.parse(text)
        try:
            self._storage.get_bucket(pattern.bucket)
        except NotFound:
            raise FailedPrecondition(f"There is no bucket gs://{pattern.bucket}.", field=field) from None
        if must_exist and not self._matches(pattern):
            raise FailedPrecondition(f"No object matches {text}.", field=field)

    def _matches(self, pattern: Pattern) -> bool:
        token = ""
        while True:
            page = self._storage.list(pattern.bucket, prefix=pattern.prefix, page_token=token)
            if any(pattern.matches(info.name) for info in page.objects):
                return True
            token = page.next_page_token
            if not token:
                return False

    def _newest_runtime(self, framework: str) -> str:
        """The latest of the service's own runtimes with the framework, else of all."""
        able = [runtime.name for runtime in self._catalogue.runtimes() if framework in runtime.frameworks]
        if not able:
            raise FailedPrecondition(f"No runtime has {framework}.", field=f"{FIELD}.runtime_version")
        return max(able, key=lambda name: (name[0].isdigit(), [int(p) for p in name.split(".") if p.isdigit()]))


def _wrong_fields(spec: PredictionInput) -> list[tuple[str, str]]:
    wrong = []
    if sum(map(bool, (spec.model_name, spec.version_name, spec.uri))) != 1:
        wrong.append(("version_name", "Give exactly one of model_name, version_name and uri."))
    if spec.data_format not in _INPUT_FORMATS:
        wrong.append(("data_format", f"The field is required: one of {', '.join(_INPUT_FORMATS)}."))
    if spec.output_data_format not in _OUTPUT_FORMATS:
        wrong.append(("output_data_format", "Predictions are written as JSON or CSV."))
    if not spec.input_paths:
        wrong.append(("input_paths", "The field is required: gs:// paths, wildcards allowed."))
    if not spec.output_path:
        wrong.append(("output_path", "The field is required: a gs:// path."))
    paths = [("input_paths", path) for path in spec.input_paths]
    paths += [("output_path", spec.output_path)] if spec.output_path else []
    for field, path in paths:
        try:
            ObjectUri.parse(path)
        except InvalidArgument as error:
            wrong.append((field, error.message))
    for field, number in (("batch_size", spec.batch_size), ("max_worker_count", spec.max_worker_count)):
        if number < 0:
            wrong.append((field, "The number can't be negative."))
    return wrong
