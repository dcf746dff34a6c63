"""Which version answers to a name: what the prediction path asks.

In: project, model and maybe version. Out: a `ServedVersion`, or a core error that says why nothing answers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from enginehouse.core.errors import FailedPrecondition, NotFound, Unavailable
from enginehouse.core.names import ModelName, VersionName
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import VersionRecord
from enginehouse.modelserver import CUSTOM, is_old
from enginehouse.registry.containers import Containers
from enginehouse.registry.messages import TRAFFIC
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Resolution
from enginehouse.serving.scaling import Scaling
from enginehouse.serving.traffic import RollBack, Split, Traffic
from enginehouse.serving.types import Sample, ServedVersion

OVERLAY_LINK = "overlay"


class StoredVersions:
    """`serving.types.VersionDirectory` over the metadata store.

    Thread-safe; quick enough for the event loop, and cached by its caller.

    Attributes:
        forget: called with (project, model_id) when what serves under that name may have changed.
    """

    def __init__(
        self,
        store: MetadataStore,
        catalogue: Catalogue,
        runtimes: RuntimeCache,
        versions_dir: Path,
        containers: Containers,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._runtimes = runtimes
        self._versions_dir = versions_dir
        self._containers = containers
        self.forget: Callable[[str, str], None] = lambda project, model_id: None

    def resolve(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        """The version to send a request to; the model's default one when `version_id` is None.

        Raises:
            NotFound: no such model or version.
            FailedPrecondition: the version is not READY, or the model has no version.
            Unavailable: the version's runtime has been removed from the cache.
        """
        return self.served(self.ready(project, model_id, version_id))

    def ready(self, project: str, model_id: str, version_id: str | None) -> VersionRecord:
        """The version of that name, or the model's default one for None.

        Raises:
            NotFound, FailedPrecondition: as in `resolve`.
        """
        if version_id is None:
            model = self._store.get_model(ModelName(project, model_id))
            if not model.default_version_id:
                raise FailedPrecondition(
                    f"The model {model_id!r} has no version yet; create one first.", field="name"
                )
            version_id = model.default_version_id
        version = self._store.get_version(VersionName(project, model_id, version_id))
        if version.state != "READY":
            reason = f": {version.error_message}" if version.error_message else "."
            raise FailedPrecondition(
                f"The version {version_id!r} of model {model_id!r} is {version.state}, so it can't predict{reason}",
                field="name",
            )
        return version

    def traffic(self, project: str, model_id: str) -> Traffic | None:
        """How requests without a version are shared out; None where all go to the default one.

        A version that can't be served now has no share, and without the default one there is nothing to share out.
        """
        model = self._store.get_model(ModelName(project, model_id))
        stored = model.request.get(TRAFFIC, {})
        shares: dict[str, int] = stored.get("shares", {})
        versions = {}
        for version_id in shares:
            with contextlib.suppress(NotFound, FailedPrecondition, Unavailable):
                versions[version_id] = self.resolve(project, model_id, version_id)
        base = model.default_version_id
        if base not in versions or versions.keys() == {base}:
            return None
        left = {version_id: shares[version_id] for version_id in versions}
        if not sum(left.values()):
            return None
        return Traffic(Split(left, base, versions, RollBack(**stored["rollBack"])))

    def resolution(self, version: VersionRecord) -> Resolution:
        """The runtime that `version` asked for."""
        request = version.request
        return self._catalogue.resolve(request["runtimeVersion"], request.get("pythonVersion"), field="version")

    def served(self, version: VersionRecord) -> ServedVersion:
        """What a model server needs to know of `version`, whatever its state."""
        container = self._containers.served(version)
        python, is_on_old_python = self._interpreter(version) if container is None else (Path(), False)
        model = self._store.get_model(version.name.model).request
        return ServedVersion(
            name=version.name,
            uid=version.uid,
            directory=self._versions_dir / version.uid,
            framework=adapter_name(version),
            python=python,
            site_dirs=self._site_dirs(version),
            sample=_sample(version),
            logs_access=model.get("onlinePredictionLogging", False),
            logs_console=model.get("onlinePredictionConsoleLogging", False),
            explanation=json.dumps(config) if (config := version.request.get("explanationConfig")) else "",
            in_worker=is_on_old_python,
            scaling=Scaling.of(version.request),
            container=container,
        )

    def _interpreter(self, version: VersionRecord) -> tuple[Path, bool]:
        """The interpreter of the version's runtime, and whether it is too old for a model server."""
        resolution = self.resolution(version)
        environment = self._runtimes.ready(resolution)
        if environment is None:
            raise Unavailable(
                f"The runtime {resolution.runtime.name} is not built any more. Build it with: "
                f"mle runtimes build {resolution.runtime.name}"
            )
        return environment.python, is_old(resolution.python_version)

    def packages_dir(self, version: VersionRecord) -> Path:
        """Where the version's own packages lie, copied as its files are."""
        return self._versions_dir / f"{version.uid}.packages"

    def _site_dirs(self, version: VersionRecord) -> tuple[Path, ...]:
        """The directory that the deployer has installed the version's packages into."""
        if not version.request.get("packageUris"):
            return ()
        link = self.packages_dir(version) / OVERLAY_LINK
        return (link.resolve(),) if link.exists() else ()


def _sample(version: VersionRecord) -> Sample | None:
    config = version.request.get("requestLoggingConfig", {})
    share = config.get("samplingPercentage", 0.0)
    return Sample(config["bigqueryTableName"], share) if share > 0 else None


def adapter_name(version: VersionRecord) -> str:
    """What the model server loads the version by: its framework, or its own class."""
    prediction_class = version.request.get("predictionClass")
    return CUSTOM + prediction_class if prediction_class else version.framework
