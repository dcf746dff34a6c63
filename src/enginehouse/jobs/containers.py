"""What a request may say of custom containers."""

from __future__ import annotations

from collections.abc import Iterator

from enginehouse.core.names import IMAGE_RULE, is_image
from enginehouse.schemas.ml_v1 import ReplicaConfig, TrainingInput

_OF_RUNTIMES = ("runtime_version", "python_version", "python_module", "package_uris")
_OF_CONTAINERS = ("image_uri", "container_command", "container_args")


def is_asked_for(spec: TrainingInput) -> bool:
    """Whether the job runs in containers."""
    return bool(spec.master_config and spec.master_config.image_uri)


def faults(spec: TrainingInput) -> Iterator[tuple[str, str]]:
    """What does not go together: field (below the training input) and cure."""
    if is_asked_for(spec):
        for field in _OF_RUNTIMES:
            if getattr(spec, field):
                yield field, "It is for a runtime; a job in a container (master_config.image_uri) has its own."
        for name, config in _configs(spec):
            if config.image_uri and not is_image(config.image_uri):
                yield f"{name}.image_uri", IMAGE_RULE
            if spec.args and (config.container_command or config.container_args):
                yield "args", f"Give args, or container_command and container_args of {name}, not both."
        return
    for name, config in _configs(spec):
        for field in _OF_CONTAINERS:
            if getattr(config, field):
                yield f"{name}.{field}", "It is for custom containers: give master_config.image_uri, too."


def _configs(spec: TrainingInput) -> list[tuple[str, ReplicaConfig]]:
    """Field name and content of each role's configuration."""
    configs = {
        "master_config": spec.master_config,
        "worker_config": spec.worker_config,
        "parameter_server_config": spec.parameter_server_config,
        "evaluator_config": spec.evaluator_config,
    }
    return [(name, config) for name, config in configs.items() if config is not None]
