"""What the API asks of models, versions and operations.

In: messages of ml v1. Out: messages of ml v1 or core errors. Thread-safe. Only creating a version takes time: its
operation is carried out by the `Deployer`; all other operations are done when they are answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from enginehouse.core import ids, names
from enginehouse.core.cases import camel_case
from enginehouse.core.clock import Clock
from enginehouse.core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.filters import EVERYTHING, Filter
from enginehouse.core.names import ModelName, ObjectUri, OperationName, VersionName
from enginehouse.core.repeats import creation_key, is_repeat
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.paging import filtered_page
from enginehouse.metadata.records import ModelRecord, NewEvent, OperationRecord, VersionRecord
from enginehouse.registry.artifacts import detect_framework, list_artifacts
from enginehouse.registry.containers import check_container, with_defaults
from enginehouse.registry.explanations import check_explanation
from enginehouse.registry.messages import model_message, operation_message, response_of, version_message
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import (
    Empty,
    ListModelsResponse,
    ListOperationsResponse,
    ListVersionsResponse,
    Model,
    Operation,
    OperationType,
    RequestLoggingConfig,
    Version,
)
from enginehouse.schemas.wire import Message, to_builtins
from enginehouse.serving.recording import TABLE_NAME
from enginehouse.storage.base import ObjectStore

DEFAULT_REGION = "us-central1"
DEFAULT_MACHINE_TYPE = "mls1-c1-m2"
_MODEL_LOGS = {"online_prediction_logging", "online_prediction_console_logging"}
_MODEL_MASK = {"description", "labels", "etag", "default_version.name"} | _MODEL_LOGS
_VERSION_MASK = {"description", "labels", "etag", "request_logging_config"} | {
    *("auto_scaling", "auto_scaling.min_nodes", "auto_scaling.max_nodes", "auto_scaling.metrics"),
    *("manual_scaling", "manual_scaling.nodes"),
}


class RegistryService:
    """The models and versions of all projects.

    Args:
        wake: called when there is a new operation for the deployer.
        forget: called with (project, model_id) whenever what serves under that name may have changed.
        retire: called with the uid of a version that is gone.
        rescale: called with a version that asks for another number of nodes now.
        find_container_engine: as of `ContainerEngines.find`.
    """

    def __init__(
        self,
        store: MetadataStore,
        storage: ObjectStore,
        catalogue: Catalogue,
        clock: Clock,
        *,
        wake: Callable[[], None],
        forget: Callable[[str, str], None],
        retire: Callable[[str], None],
        rescale: Callable[[VersionRecord], None] = lambda version: None,
        find_container_engine: Callable[[], str],
    ) -> None:
        self._store = store
        self._storage = storage
        self._catalogue = catalogue
        self._clock = clock
        self._wake = wake
        self._forget = forget
        self._retire = retire
        self._rescale = rescale
        self._find_container_engine = find_container_engine

    # --- models ---

    def create_model(self, project: str, model: Model, caller: str = "") -> Model:
        """Add a model, at once; asked for the same again by `caller`, give what is there (see core/repeats.py)."""
        names.check_project_id(project)
        names.check_resource_id(model.name, kind="model", field="model.name")
        names.check_labels(model.labels, field="model.labels")
        if len(model.regions) > 1:
            raise InvalidArgument("A model lives in one region only.", field="model.regions")
        request = Model(
            description=model.description,
            regions=model.regions or [DEFAULT_REGION],
            online_prediction_logging=model.online_prediction_logging,
            online_prediction_console_logging=model.online_prediction_console_logging,
            labels=model.labels,
        )
        record = ModelRecord(
            name=ModelName(project, model.name),
            request=to_builtins(request),
            create_time_ns=self._clock.time_ns(),
            creation_key=creation_key(caller, to_builtins(request)),
        )
        try:
            return model_message(self._store.create_model(record), None)
        except AlreadyExists:
            existing = self._store.get_model(record.name)
            if not is_repeat(record, existing):
                raise
            return self._model_message(existing)

    def get_model(self, name: ModelName) -> Model:
        return self._model_message(self._store.get_model(name))

    def list_models(
        self, project: str, *, page_size: int, page_token: str = "", wanted: Filter = EVERYTHING
    ) -> ListModelsResponse:
        """By name, those that pass the filter."""
        models, token = filtered_page(
            lambda token: self._store.list_models(project, page_size=page_size, page_token=token),
            self._model_message,
            wanted,
            page_size=page_size,
            page_token=page_token,
        )
        return ListModelsResponse(models=models, next_page_token=token)

    def patch_model(self, name: ModelName, model: Model, update_mask: frozenset[str]) -> Operation:
        """Change description, labels, the default version or which logs are written (our extension)."""
        _check_mask(update_mask, _MODEL_MASK)
        names.check_labels(model.labels, field="model.labels")
        default_id = ""
        if "default_version.name" in update_mask:
            default_id = (model.default_version.name if model.default_version else "").rpartition("/")[2]
            self._require_ready(VersionName(name.project, name.model_id, default_id))

        def change(old: ModelRecord) -> tuple[ModelRecord, Sequence[NewEvent]]:
            ids.check_etag(model.etag, old.revision)
            request = _patched(old.request, model, update_mask & ({"description", "labels"} | _MODEL_LOGS))
            return replace(old, request=request, default_version_id=default_id or old.default_version_id), []

        changed = self._store.change_model(name, change)
        self._forget(name.project, name.model_id)
        return self._done("UPDATE_MODEL", name, "", {}, self._model_message(changed))

    def delete_model(self, name: ModelName) -> Operation:
        """Remove a model without versions, at once."""
        self._store.delete_model(name)
        self._forget(name.project, name.model_id)
        return self._done("DELETE_MODEL", name, "", {}, None)

    def _model_message(self, model: ModelRecord) -> Model:
        default = None
        if model.default_version_id:
            try:
                default = self._store.get_version(
                    VersionName(model.name.project, model.name.model_id, model.default_version_id)
                )
            except NotFound:  # deleted between the two reads
                default = None
        return model_message(model, default)

    # --- versions ---

    def create_version(self, model: ModelName, version: Version, caller: str = "") -> Operation:
        """Check what can be checked at once and leave loading and testing to the deployer.

        Asked for the same again by `caller`, give the operation that there is (see core/repeats.py).

        Raises:
            InvalidArgument, FailedPrecondition: naming the field; nothing is stored.
        """
        name = VersionName(model.project, model.model_id, version.name)
        names.check_resource_id(version.name, kind="version", field="version.name")
        names.check_labels(version.labels, field="version.labels")
        self._store.get_model(model)
        check_container(version, self._find_container_engine)
        with_defaults(version, name)
        framework = self._check_artifacts(version)
        if version.container is None:
            self._check_runtime(version, framework)
        check_explanation(version.explanation_config, framework)
        now_ns = self._clock.time_ns()
        request = to_builtins(_as_requested(version))
        _check_scaling(request)
        record = VersionRecord(
            name=name,
            uid=ids.new_id(),
            state="CREATING",
            request=request,
            framework=framework,
            create_time_ns=now_ns,
            creation_key=creation_key(caller, request),
        )
        operation = self._operation("CREATE_VERSION", model, version.name, record.request)
        try:
            self._store.create_version(record, operation)
        except AlreadyExists:
            creation = self._creation_of(name) if is_repeat(record, self._store.get_version(name)) else None
            if creation is None:
                raise
            return operation_message(creation)
        self._forget(model.project, model.model_id)
        self._wake()
        return operation_message(operation)

    def _creation_of(self, name: VersionName) -> OperationRecord | None:
        """The operation that made a version: the newest of its kind."""
        wanted, token = ("CREATE_VERSION", name.model, name.version_id), ""
        while True:
            page = self._store.list_operations(name.project, page_size=100, page_token=token)
            for each in page.items:
                if (each.operation_type, each.model, each.version_id) == wanted:
                    return each
            token = page.next_token
            if not token:
                return None

    def _check_artifacts(self, version: Version) -> str:
        if version.container is not None and not version.deployment_uri:
            return ""
        if not version.deployment_uri:
            raise InvalidArgument(
                "The field is required: the gs:// directory of the model.", field="version.deployment_uri"
            )
        uri = ObjectUri.parse(version.deployment_uri, field="version.deployment_uri")
        artifacts = list_artifacts(self._storage, uri)
        for package in version.package_uris:
            self._require_package(package)
        if version.container is not None:
            return ""
        if not version.prediction_class:
            return detect_framework(uri, artifacts, version.framework)
        if version.framework != "FRAMEWORK_UNSPECIFIED":
            raise InvalidArgument("Give framework or prediction_class, not both.", field="version.framework")
        if not version.package_uris:
            raise InvalidArgument(
                "The field is required: the packages that hold the prediction class.", field="version.package_uris"
            )
        return ""

    def _require_package(self, package: str) -> None:
        uri = ObjectUri.parse(package, field="version.package_uris")
        try:
            self._storage.get(uri.bucket, uri.name)
        except NotFound:
            raise FailedPrecondition(
                f"There is no object {uri}; upload the package first.", field="version.package_uris"
            ) from None

    def _check_runtime(self, version: Version, framework: str) -> None:
        if not version.runtime_version:
            known = ", ".join(self._catalogue.names())
            raise InvalidArgument(f"The field is required. Known runtimes: {known}.", field="version.runtime_version")
        resolution = self._catalogue.resolve(version.runtime_version, version.python_version or None, field="version")
        if framework and framework not in resolution.runtime.frameworks:
            fitting = [r.name for r in self._catalogue.runtimes() if framework in r.frameworks]
            raise InvalidArgument(
                f"The runtime {version.runtime_version} has no {framework}; these have: {', '.join(fitting)}.",
                field="version.runtime_version",
            )

    def get_version(self, name: VersionName) -> Version:
        version = self._store.get_version(name)
        return self._version_message(version)

    def list_versions(
        self, model: ModelName, *, page_size: int, page_token: str = "", wanted: Filter = EVERYTHING
    ) -> ListVersionsResponse:
        """By name, those that pass the filter."""
        default_id = self._store.get_model(model).default_version_id
        versions, token = filtered_page(
            lambda token: self._store.list_versions(model, page_size=page_size, page_token=token),
            lambda version: version_message(version, is_default=version.name.version_id == default_id),
            wanted,
            page_size=page_size,
            page_token=page_token,
        )
        return ListVersionsResponse(versions=versions, next_page_token=token)

    def set_default_version(self, name: VersionName) -> Version:
        """Let requests without a version go to this one from now on."""
        version = self._require_ready(name)
        self._store.change_model(name.model, lambda model: (replace(model, default_version_id=name.version_id), []))
        self._forget(name.project, name.model_id)
        return version_message(version, is_default=True)

    def patch_version(self, name: VersionName, version: Version, update_mask: frozenset[str]) -> Operation:
        """Change description, labels or scaling."""
        _check_mask(update_mask, _VERSION_MASK)
        names.check_labels(version.labels, field="version.labels")
        if any(path.startswith("request_logging_config") for path in update_mask):
            _check_request_logging(version.request_logging_config)

        def change(old: VersionRecord) -> tuple[VersionRecord, Sequence[NewEvent]]:
            ids.check_etag(version.etag, old.revision)
            _refuse_while_changing(old)
            request = _patched(old.request, version, update_mask - {"etag"})
            _check_scaling(request)
            return replace(old, request=request), []

        changed = self._store.change_version(name, change)
        self._forget(name.project, name.model_id)
        rescaled = any(path.startswith(("auto_scaling", "manual_scaling")) for path in update_mask)
        if rescaled and changed.state == "READY":
            self._rescale(changed)
        return self._done(
            "UPDATE_VERSION", name.model, name.version_id, changed.request, self._version_message(changed)
        )

    def delete_version(self, name: VersionName) -> Operation:
        """Remove a version, at once; the default one only when it is the last.

        Raises:
            FailedPrecondition: it is the default of several, or being created.
        """
        version = self._store.get_version(name)
        _refuse_while_changing(version)
        model = self._store.get_model(name.model)
        others = self._store.list_versions(name.model, page_size=2).items
        if model.default_version_id == name.version_id and len(others) > 1:
            raise FailedPrecondition(
                f"{name.version_id!r} is the default version of a model with several; set another default first.",
                field="name",
            )
        operation = self._ended(self._operation("DELETE_VERSION", name.model, name.version_id, version.request), None)
        self._store.delete_version(name, operation)
        self._forget(name.project, name.model_id)
        self._retire(version.uid)
        return operation_message(operation)

    def _version_message(self, version: VersionRecord) -> Version:
        default_id = self._store.get_model(version.name.model).default_version_id
        return version_message(version, is_default=version.name.version_id == default_id)

    def _require_ready(self, name: VersionName) -> VersionRecord:
        version = self._store.get_version(name)
        if version.state != "READY":
            raise FailedPrecondition(
                f"Only a version that is READY can be the default; {name.version_id!r} is {version.state}.",
                field="name",
            )
        return version

    # --- operations ---

    def get_operation(self, name: OperationName) -> Operation:
        return operation_message(self._store.get_operation(name))

    def list_operations(
        self, project: str, *, page_size: int, page_token: str = "", wanted: Filter = EVERYTHING
    ) -> ListOperationsResponse:
        """Newest first, those that pass the filter."""
        operations, token = filtered_page(
            lambda token: self._store.list_operations(project, page_size=page_size, page_token=token),
            operation_message,
            wanted,
            page_size=page_size,
            page_token=page_token,
        )
        return ListOperationsResponse(operations=operations, next_page_token=token)

    def cancel_operation(self, name: OperationName) -> Empty:
        """Note the wish; an operation that is done already stays as it is. Best effort, as in the original."""
        operation = self._store.get_operation(name)
        if not operation.done:
            self._store.put_operation(replace(operation, cancel_requested=True, revision=operation.revision + 1))
        return Empty()

    def _operation(
        self, kind: OperationType, model: ModelName, version_id: str, request: dict[str, Any]
    ) -> OperationRecord:
        now_ns = self._clock.time_ns()
        target = "_".join(part for part in (model.model_id, version_id) if part)
        operation_id = f"{kind.split('_')[0].lower()}_{target}-{now_ns // 1_000_000}-{ids.new_id(4)}"
        return OperationRecord(
            name=OperationName(model.project, operation_id),
            operation_type=kind,
            model=model,
            version_id=version_id,
            request=request,
            create_time_ns=now_ns,
        )

    def _ended(self, operation: OperationRecord, response: Version | Model | None) -> OperationRecord:
        now_ns = self._clock.time_ns()
        return replace(operation, start_time_ns=now_ns, end_time_ns=now_ns, response=response_of(response))

    def _done(
        self,
        kind: OperationType,
        model: ModelName,
        version_id: str,
        request: dict[str, Any],
        response: Version | Model | None,
    ) -> Operation:
        operation = self._ended(self._operation(kind, model, version_id, request), response)
        return operation_message(self._store.put_operation(operation))


def _refuse_while_changing(version: VersionRecord) -> None:
    if version.state in ("CREATING", "DELETING", "UPDATING"):
        raise FailedPrecondition(
            f"Version {version.name.version_id!r} is {version.state}; wait until that has ended.", field="name"
        )


def _check_request_logging(config: RequestLoggingConfig | None) -> None:
    field = "version.request_logging_config"
    if config is None:
        return
    if not 0 <= config.sampling_percentage <= 1:
        raise InvalidArgument("A share between 0 and 1, such as 0.1.", field=f"{field}.sampling_percentage")
    if not TABLE_NAME.fullmatch(config.bigquery_table_name):
        raise InvalidArgument(
            f"{config.bigquery_table_name!r} is not project.dataset.table.", field=f"{field}.bigquery_table_name"
        )


def _check_scaling(request: dict[str, Any]) -> None:
    """The wishes for nodes go together."""
    auto, manual = request.get("autoScaling"), request.get("manualScaling")
    if auto and manual:
        raise InvalidArgument("Give auto_scaling or manual_scaling, not both.", field="version.manual_scaling")
    least, most = int((auto or {}).get("minNodes") or 0), int((auto or {}).get("maxNodes") or 0)
    if least < 0 or most < 0 or (most and least > most):
        raise InvalidArgument(
            f"min_nodes is {least} and max_nodes {most}: 0 ≤ min_nodes ≤ max_nodes is needed.",
            field="version.auto_scaling.min_nodes",
        )
    if manual and int(manual.get("nodes") or 0) < 1:
        raise InvalidArgument("At least one node is needed.", field="version.manual_scaling.nodes")


def _check_mask(update_mask: frozenset[str], allowed: set[str]) -> None:
    wrong = sorted(update_mask - allowed)
    if wrong or not update_mask:
        raise InvalidArgument(
            f"{', '.join(wrong) or 'An empty mask'} can't be updated; these can: {', '.join(sorted(allowed))}.",
            field="update_mask",
        )


def _as_requested(version: Version) -> Version:
    """The fields of a create request that are kept: no output-only ones, defaults filled in."""
    return Version(
        description=version.description,
        deployment_uri=version.deployment_uri,
        runtime_version=version.runtime_version,
        python_version=version.python_version,
        machine_type=version.machine_type or DEFAULT_MACHINE_TYPE,
        auto_scaling=version.auto_scaling,
        manual_scaling=version.manual_scaling,
        framework=version.framework,
        prediction_class=version.prediction_class,
        container=version.container,
        routes=version.routes,
        package_uris=version.package_uris,
        service_account=version.service_account,
        accelerator_config=version.accelerator_config,
        explanation_config=version.explanation_config,
        labels=version.labels,
    )


def _patched(request: dict[str, Any], message: Message, paths: frozenset[str] | set[str]) -> dict[str, Any]:
    """`request` with the fields of `paths` (`auto_scaling.min_nodes`) taken from `message`, and no others."""
    sent, result = to_builtins(message), deepcopy(request)
    for path in paths:
        *parents, leaf = [camel_case(part) for part in path.split(".")]
        source, target = sent, result
        for parent in parents:
            source, target = source.get(parent, {}), target.setdefault(parent, {})
        if leaf in source:
            target[leaf] = source[leaf]
        else:
            target.pop(leaf, None)
    return result
