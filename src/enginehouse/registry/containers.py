"""Versions that are custom containers: what a request may say of them, and what the container is told.

In: a version of ml v1. Out: core errors, or a `ServedContainer`. The variables and defaults are the original's
(AI Platform Prediction, "Custom container requirements").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from enginehouse.core.errors import FailedPrecondition, InvalidArgument
from enginehouse.core.names import IMAGE_RULE, VersionName, is_image, project_number
from enginehouse.metadata.records import VersionRecord
from enginehouse.registry.messages import fields_of
from enginehouse.schemas.ml_v1 import ContainerPort, RouteMap, Version
from enginehouse.schemas.wire import from_builtins
from enginehouse.serving.container import MODEL_DIR, environment
from enginehouse.serving.types import ServedContainer

DEFAULT_PORT = 8080
DEFAULT_MACHINE_TYPE = "n1-standard-2"
_NOT_WITH = ("runtime_version", "python_version", "package_uris", "prediction_class", "explanation_config")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = "AIP_"


def check_container(version: Version, find_engine: Callable[[], str]) -> None:
    """What a version says of its container goes together, and something can run it.

    Args:
        find_engine: as of `ContainerEngines.find`.

    Raises:
        InvalidArgument, FailedPrecondition: naming the field.
    """
    container = version.container
    if container is None:
        if version.routes:
            raise InvalidArgument("It is for custom containers: give container, too.", field="version.routes")
        return
    if not container.image:
        raise InvalidArgument("The field is required: the image to run.", field="version.container.image")
    if not is_image(container.image):
        raise InvalidArgument(IMAGE_RULE, field="version.container.image")
    for field in _NOT_WITH:
        if getattr(version, field):
            raise InvalidArgument(
                "It is for a runtime; a version with a container has its own.", field=f"version.{field}"
            )
    if version.framework != "FRAMEWORK_UNSPECIFIED":
        raise InvalidArgument("A version with a container has none.", field="version.framework")
    if any(not 1 <= port.container_port <= 65535 for port in container.ports):
        raise InvalidArgument("A port is between 1 and 65535.", field="version.container.ports")
    for each in container.env:
        if not _VARIABLE.fullmatch(each.name) or each.name.startswith(_RESERVED):
            raise InvalidArgument(
                f"{each.name!r} can't be set: a name has letters, digits and '_', begins with no digit, and not with "
                f"{_RESERVED}, which the service's own do.",
                field="version.container.env",
            )
        if "\n" in each.value:
            raise InvalidArgument(
                f"The value of {each.name} can't have more than one line.", field="version.container.env"
            )
    for field in ("predict", "health"):
        route = getattr(version.routes, field, "")
        if route and not route.startswith("/"):
            raise InvalidArgument("A route is a path, it begins with '/'.", field=f"version.routes.{field}")
    try:
        find_engine()
    except FailedPrecondition as error:
        raise FailedPrecondition(error.message, field="version.container") from None


def with_defaults(version: Version, name: VersionName) -> None:
    """Fill in the port and the routes of a version with a container."""
    if version.container is None:
        return
    version.container.ports = version.container.ports or [ContainerPort(container_port=DEFAULT_PORT)]
    path = f"/v1/models/{name.model_id}/versions/{name.version_id}"
    given = version.routes or RouteMap()
    version.routes = RouteMap(predict=given.predict or f"{path}:predict", health=given.health or path)
    version.machine_type = version.machine_type or DEFAULT_MACHINE_TYPE


@dataclass(frozen=True)
class Containers:
    """Makes `ServedContainer`s; `find_engine` as of `ContainerEngines.find`."""

    find_engine: Callable[[], str]

    def served(self, version: VersionRecord) -> ServedContainer | None:
        """The container of a version, None where it has none."""
        message = from_builtins(Version, fields_of(version.request))
        container, routes = message.container, message.routes
        if container is None or routes is None:
            return None
        port = container.ports[0].container_port
        accelerator = message.accelerator_config
        told = {
            "AIP_PROJECT": version.name.project,
            "AIP_PROJECT_NUMBER": str(project_number(version.name.project)),
            "AIP_MODEL_NAME": version.name.model_id,
            "AIP_VERSION_NAME": version.name.version_id,
            "AIP_MODE": "PREDICTION",
            "AIP_MODE_VERSION": "1.0.0",
            "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
            "AIP_MACHINE_TYPE": message.machine_type,
            "AIP_ACCELERATOR_TYPE": accelerator.type if accelerator else "",
            "AIP_HTTP_PORT": str(port),
            "AIP_PREDICT_ROUTE": routes.predict,
            "AIP_HEALTH_ROUTE": routes.health,
            "AIP_STORAGE_URI": MODEL_DIR if message.deployment_uri else "",
        }
        return ServedContainer(
            engine=self.find_engine,
            image=container.image,
            command=tuple(container.command),
            args=tuple(container.args),
            environment=environment({each.name: each.value for each in container.env}, told),
            port=port,
            predict_route=routes.predict,
            health_route=routes.health,
            has_files=bool(message.deployment_uri),
        )
