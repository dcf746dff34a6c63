"""Judges a job before anything is queued: all wrong fields at once, each with its cure.

In: the message Job of a create request. Out: a `Plan`, or `InvalidArgument`/`FailedPrecondition` naming the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from enginehouse.backends.base import Backend, RunsContainers
from enginehouse.core import names, units
from enginehouse.core.errors import EngineError, FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from enginehouse.core.names import JobName
from enginehouse.jobs import containers, hyperparameters
from enginehouse.jobs.archive import ArchiveContents, UnreadableArchive, read_contents
from enginehouse.jobs.machines import LEGACY, TPU, is_legacy, machine
from enginehouse.jobs.plan import Plan, make_plan
from enginehouse.jobs.prediction import Models, PredictionValidator
from enginehouse.metadata.records import JobRecord
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import HyperparameterSpec, Job, TrainingInput
from enginehouse.schemas.wire import from_builtins
from enginehouse.storage.base import ObjectStore

MAX_PACKAGES = 100
MAX_PRIORITY = 1000
MAX_REPLICAS = 200
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_FIELD = "training_input"


class Validator:
    """Checks create requests against the catalogue of runtimes and the objects in the buckets. Thread-safe.

    Args:
        models: finds what a batch prediction job predicts with.
        backend: will run the jobs.
        find_job: finds the job that a tuning job resumes.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        storage: ObjectStore,
        models: Models,
        backend: Backend,
        find_job: Callable[[JobName], JobRecord],
    ) -> None:
        self._catalogue = catalogue
        self._find_job = find_job
        self._storage = storage
        self._backend = backend
        self._predictions = PredictionValidator(catalogue, storage, models)

    def validate(self, project: str, job: Job) -> Plan:
        """The plan of a good job.

        Raises:
            NotFound: a prediction job's model or version does not exist.
            InvalidArgument: what is wrong in the request itself.
            FailedPrecondition: what it needs and is not there: packages, buckets.
        """
        names.check_resource_id(job.job_id, kind="job", field="job.job_id")
        names.check_labels(job.labels, field="job.labels")
        if job.prediction_input is not None and job.training_input is not None:
            raise InvalidArgument("Give training_input or prediction_input, not both.", field="prediction_input")
        if job.prediction_input is not None:
            return self._predictions.plan(project, job.prediction_input)
        if job.training_input is None:
            raise InvalidArgument("The field is required: say what to train.", field=_FIELD)
        spec = job.training_input
        violations = _Violations()
        runs_image = containers.is_asked_for(spec)
        checks = () if runs_image else (_check_module, _check_packages)
        for check in (*checks, _check_tier, _check_scheduling):
            check(spec, violations)
        for field, text in containers.faults(spec):
            violations.add(field, text)
        if spec.hyperparameters is not None:
            self._check_tuning(project, spec.hyperparameters, violations)
        plan = violations.collect(lambda: self._plan(spec))
        violations.raise_as(InvalidArgument)
        assert plan is not None
        violations.collect(lambda: self._check_job_dir(spec))
        violations.collect(lambda: self._check_engine() if runs_image else self._check_contents(spec))
        violations.raise_as(FailedPrecondition)
        return plan

    def _plan(self, spec: TrainingInput) -> Plan:
        if containers.is_asked_for(spec):
            return make_plan(spec, None)
        if not spec.runtime_version:
            known = ", ".join(self._catalogue.names())
            raise InvalidArgument(
                f"The field is required. Known runtimes: {known}.", field=f"{_FIELD}.runtime_version"
            )
        resolution = self._catalogue.resolve(spec.runtime_version, spec.python_version or None, field=_FIELD)
        return make_plan(spec, resolution)

    def _check_tuning(self, project: str, spec: HyperparameterSpec, violations: _Violations) -> None:
        field = "hyperparameters"
        found = list(hyperparameters.faults(spec))
        if spec.resume_previous_job_id:
            found += self._resume_faults(JobName(project, spec.resume_previous_job_id), spec)
        for path, text in found:
            violations.add(f"{field}.{path}", text)

    def _resume_faults(self, previous: JobName, spec: HyperparameterSpec) -> list[hyperparameters.Fault]:
        field = "resume_previous_job_id"
        try:
            job = self._find_job(previous)
        except NotFound:
            return [(field, f"There is no job {previous.job_id!r} in the project {previous.project}.")]
        if not job.is_tuning:
            return [(field, f"The job {previous.job_id!r} tuned no hyperparameters.")]
        if not job.is_terminal:
            return [(field, f"The job {previous.job_id!r} has not ended; add trials to it with mle jobs update.")]
        before = from_builtins(HyperparameterSpec, job.request["trainingInput"]["hyperparameters"])
        return list(hyperparameters.widening_faults(spec, before))

    def _check_engine(self) -> None:
        """Something runs containers here."""
        field = f"{_FIELD}.master_config.image_uri"
        if not isinstance(self._backend, RunsContainers):
            raise FailedPrecondition("The backend of this engine runs no containers.", field=field)
        try:
            self._backend.container_engine()
        except FailedPrecondition as error:
            raise FailedPrecondition(error.message, field=field) from None

    def _check_job_dir(self, spec: TrainingInput) -> None:
        if spec.job_dir:
            uri = names.ObjectUri.parse(spec.job_dir, field=f"{_FIELD}.job_dir")
            self._require_bucket(uri.bucket, field=f"{_FIELD}.job_dir")

    def _require_bucket(self, bucket: str, *, field: str) -> None:
        try:
            self._storage.get_bucket(bucket)
        except NotFound:
            raise FailedPrecondition(
                f"There is no bucket gs://{bucket}. Make it with: mle storage mb gs://{bucket}", field=field
            ) from None

    def _check_contents(self, spec: TrainingInput) -> None:
        """The packages are there, are archives, and hold the module (unless a dependency may bring it)."""
        found = [self._read_package(uri) for uri in spec.package_uris]
        module, top_level = spec.python_module, spec.python_module.partition(".")[0]
        if any(contents.can_run(module) for contents in found):
            return
        owners = [contents for contents in found if top_level in contents.top_level]
        if not owners and any(contents.has_requirements for contents in found):
            return  # a dependency may bring it
        modules = sorted(set().union(*(contents.modules for contents in owners or found)))
        held = ", ".join(modules[:20]) + (", …" if len(modules) > 20 else "")
        if module in modules:
            problem = f"{module!r} is a package without a __main__.py, so it can't be run."
        else:
            problem = f"There is no module {module!r} in the packages."
        raise FailedPrecondition(
            f"{problem} They hold: {held or 'no modules at all'}.", field=f"{_FIELD}.python_module"
        )

    def _read_package(self, uri_text: str) -> ArchiveContents:
        field = f"{_FIELD}.package_uris"
        uri = names.ObjectUri.parse(uri_text, field=field)
        self._require_bucket(uri.bucket, field=field)
        try:
            _info, file = self._storage.open_read(uri.bucket, uri.name)
        except (NotFound, InvalidArgument):
            raise FailedPrecondition(f"There is no object {uri}; upload the package first.", field=field) from None
        with file:
            try:
                return read_contents(file, uri.name)
            except UnreadableArchive as error:
                raise FailedPrecondition(f"The package {uri} can't be read: {error}.", field=field) from None


class _Violations:
    """Gathers what is wrong, so that the user learns all of it in one go."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        self._found.append(FieldViolation(f"{_FIELD}.{field}", description))

    def collect(self, step: Callable[[], Plan | None]) -> Plan | None:
        try:
            return step()
        except EngineError as error:
            if not error.violations:
                raise
            self._found.extend(error.violations)
            return None

    def raise_as(self, kind: type[EngineError]) -> None:
        if self._found:
            raise kind(violations=self._found)


def _check_module(spec: TrainingInput, violations: _Violations) -> None:
    if not spec.python_module:
        violations.add("python_module", "The field is required: the module to run, such as trainer.task.")
    elif not _MODULE.fullmatch(spec.python_module):
        violations.add("python_module", f"{spec.python_module!r} is no dotted module name, such as trainer.task.")


def _check_packages(spec: TrainingInput, violations: _Violations) -> None:
    if not 1 <= len(spec.package_uris) <= MAX_PACKAGES:
        violations.add(
            "package_uris", f"Give 1 to {MAX_PACKAGES} packages (gs:// paths); got {len(spec.package_uris)}."
        )
    for uri in spec.package_uris:
        violations.collect(lambda uri=uri: _parse(uri))  # type: ignore[misc]


def _parse(uri: str) -> None:
    names.ObjectUri.parse(uri, field=f"{_FIELD}.package_uris")


def _check_tier(spec: TrainingInput, violations: _Violations) -> None:
    tier = spec.scale_tier or "BASIC"
    if tier == "BASIC_TPU":
        violations.add("scale_tier", "There are no TPUs here; train on CPUs or GPUs with another tier.")
    if tier == "CUSTOM" and not spec.master_type:
        violations.add("master_type", "The field is required with the scale tier CUSTOM.")
    for field, machine_type, count in _machines(spec):
        if count < 0:
            violations.add(f"{field}_count", "A count can't be negative.")
        elif count and tier != "CUSTOM":
            violations.add(f"{field}_count", f"Counts are given only with the scale tier CUSTOM, not with {tier}.")
        elif count and not machine_type:
            violations.add(f"{field}_type", f"The field is required where {field}_count is not 0.")
    types = {field: machine_type for field, machine_type, _count in _machines(spec) if machine_type}
    if spec.master_type:
        types["master"] = spec.master_type
    for field, machine_type in types.items():
        if machine_type == TPU:
            violations.add(f"{field}_type", "There are no TPUs here; name a machine type with CPUs or GPUs.")
        elif machine(machine_type) is None:
            violations.add(
                f"{field}_type",
                f"{machine_type!r} is no machine type. There are {', '.join(sorted(LEGACY))}, and those of Compute "
                "Engine, such as n1-standard-4.",
            )
    if len({is_legacy(machine_type) for machine_type in types.values()}) > 1:
        violations.add("master_type", "Machine types of the service and of Compute Engine can't be mixed in a job.")
    replicas = 1 + sum(max(0, count) for _field, _type, count in _machines(spec))
    if replicas > MAX_REPLICAS:
        violations.add("worker_count", f"A job has at most {MAX_REPLICAS} replicas; this one asks for {replicas}.")


def _machines(spec: TrainingInput) -> list[tuple[str, str, int]]:
    """Field name, machine type and count of each role but the master's."""
    return [
        ("worker", spec.worker_type, spec.worker_count),
        ("parameter_server", spec.parameter_server_type, spec.parameter_server_count),
        ("evaluator", spec.evaluator_type, spec.evaluator_count),
    ]


def _check_scheduling(spec: TrainingInput, violations: _Violations) -> None:
    scheduling = spec.scheduling
    if scheduling is None:
        return
    if not 0 <= scheduling.priority <= MAX_PRIORITY:
        violations.add("scheduling.priority", f"A priority is between 0 and {MAX_PRIORITY}.")
    for field, text in (
        ("max_running_time", scheduling.max_running_time),
        ("max_wait_time", scheduling.max_wait_time),
    ):
        try:
            if text and units.parse_duration_s(text) <= 0:
                violations.add(f"scheduling.{field}", "The duration must be positive.")
        except ValueError as error:
            violations.add(f"scheduling.{field}", f"{error}.")
