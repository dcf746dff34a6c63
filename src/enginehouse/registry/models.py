"""What batch prediction jobs predict with: `jobs.prediction.Models` over the registry and the buckets."""

from __future__ import annotations

from pathlib import Path

from enginehouse.core.errors import FailedPrecondition
from enginehouse.core.names import ObjectUri
from enginehouse.jobs.prediction import FIELD, FoundModel
from enginehouse.registry.artifacts import detect_framework, list_artifacts
from enginehouse.registry.directory import StoredVersions, adapter_name
from enginehouse.storage.base import ObjectStore


class RegisteredModels:
    """Thread-safe.

    Args:
        directory: the stored versions.
        storage: where models lie that are no version.
        versions_dir: the copied files of the versions.
    """

    def __init__(self, directory: StoredVersions, storage: ObjectStore, versions_dir: Path) -> None:
        self._directory = directory
        self._storage = storage
        self._versions_dir = versions_dir

    def version(self, project: str, model_id: str, version_id: str | None) -> FoundModel:
        """See `Models.version`."""
        version = self._directory.ready(project, model_id, version_id)
        if "container" in version.request:
            raise FailedPrecondition(
                "A version with a custom container answers online predictions only.", field=FIELD
            )
        return FoundModel(
            name=str(version.name),
            framework=adapter_name(version),
            runtime_version=version.request["runtimeVersion"],
            python_version=version.request.get("pythonVersion") or None,
            directory=str((self._versions_dir / version.uid).absolute()),
            package_uris=tuple(version.request.get("packageUris", ())),
        )

    def at(self, uri: ObjectUri) -> FoundModel:
        """See `Models.at`."""
        field = f"{FIELD}.uri"
        framework = detect_framework(uri, list_artifacts(self._storage, uri, field=field), "", field=field)
        return FoundModel(name=str(uri), framework=framework, runtime_version="", python_version=None, uri=str(uri))
