"""A replica in a container: what podman or docker is told, and what is asked of it afterwards.

In: a `ReplicaSpec` with a container. Out: the command that runs it in the foreground, as `Prepared`. The program of
the engine stays below the runner and hands signals on; the container itself may be anybody's child (podman's
monitor's, a daemon's), so it is found by its name, which is made of the replica's directory.

Standard library only. The rules for command and arguments are Kubernetes': a command takes the place of ENTRYPOINT
and CMD, arguments that of CMD, and both may refer to variables as `$(NAME)`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from enginehouse.core.expansion import expand
from enginehouse.core.files import read_json
from enginehouse.replica.environment import EnvironmentFailedError, Prepared
from enginehouse.replica.spec import MARKER, SPEC_FILE, ContainerSpec, Mount, ReplicaSpec

_ASK_LIMIT_S = 60.0
_PULL_LIMIT_S = 4 * 3600.0
ENGINE_FAILURES = (125, 126, 127)
"""What podman and docker exit with when they could not run the container, or find or run its command."""


class Container:
    """The container of one replica.

    Args:
        directory: the replica's.
        spec: its spec, whose container is set.
    """

    def __init__(self, directory: Path, spec: ReplicaSpec) -> None:
        assert spec.container is not None
        self._directory = directory
        self._spec = spec
        self._container: ContainerSpec = spec.container
        self._name = container_name(directory)

    def prepare(self, log: Callable[[str], None], host: Mapping[str, str] = os.environ) -> Prepared:
        """Bring the image here and make the command.

        Raises:
            EnvironmentFailedError: there is no such image, in the words of the engine.
        """
        bring_image(self._container.engine, self._container.image, log)
        self._directory.chmod(0o700)  # what is copied here is for the container's users, whoever they are
        return Prepared(
            Path(),
            {**host, **self._spec.environment, MARKER: str(self._directory)},
            command=tuple(self._command()),
            what="container",
        )

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has ended it since it had more memory than it may."""
        return self._ask("inspect", "--format", "{{.State.OOMKilled}}", self._name).stdout.strip() == b"true"

    def never_ran(self) -> bool:
        """Whether its program was never begun."""
        asked = self._ask("inspect", "--format", "{{.State.StartedAt}}", self._name)
        return asked.returncode != 0 or asked.stdout.strip().startswith(b"0001-")

    def remove(self) -> None:
        """Kill it and remove it; fine if it is not there."""
        remove(self._container.engine, self._name)

    def _command(self) -> list[str]:
        spec, container = self._spec, self._container
        command = [container.engine, "run", "--name", self._name, "--network", "host", "--log-driver", "none"]
        for name in sorted([*spec.environment, MARKER]):
            command += ["--env", name]  # the value is taken from the variables, where no list of processes shows it
        for mount in container.mounts:
            command += ["--volume", f"{self._source(mount)}:{mount.target}{':ro' if mount.way == 'read' else ''}"]
        if spec.memory_bytes:
            command += ["--memory", f"{spec.memory_bytes}b"]
        if spec.cpus:
            command += ["--cpus", f"{spec.cpus:g}"]
        if spec.environment.get("CUDA_VISIBLE_DEVICES"):
            is_podman = "podman" in Path(container.engine).name
            command += ["--device", "nvidia.com/gpu=all"] if is_podman else ["--gpus", "all"]
        own = [expand(each, spec.environment) for each in container.command]
        if own:
            command += ["--entrypoint", own[0]]
        return [*command, container.image, *own[1:], *self._arguments()]

    def _arguments(self) -> list[str]:
        """What follows the image; its own CMD stays where nobody said anything else but the job-dir."""
        spec, container = self._spec, self._container
        arguments = [expand(each, spec.environment) for each in spec.arguments]
        if spec.job_dir is None or spec.args or container.command:
            return arguments
        asked = self._ask("image", "inspect", "--format", "{{json .Config.Cmd}}", container.image)
        try:
            own = json.loads(asked.stdout) or []
        except ValueError:
            own = []
        return [*map(str, own), *arguments]

    def _source(self, mount: Mount) -> Path:
        """What is mounted; the container's users, whoever they are, may write where it is to be written."""
        if mount.way == "write":
            Path(mount.source).chmod(0o777)
        if mount.way != "copy":
            return Path(mount.source)
        copy = self._directory / "mounted" / mount.target.strip("/").replace("/", "-")
        if not copy.exists():
            shutil.copytree(mount.source, copy, symlinks=True)
            for path in [copy, *copy.rglob("*")]:
                if not path.is_symlink():
                    path.chmod(0o777 if path.is_dir() else 0o666)
        return copy

    def _ask(self, *arguments: str, limit_s: float = _ASK_LIMIT_S) -> subprocess.CompletedProcess[bytes]:
        return _ask(self._container.engine, *arguments, limit_s=limit_s)


def container_name(directory: Path) -> str:
    """The name of the container of the replica in a directory."""
    return "enginehouse-" + hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]


def discard(directory: Path) -> bool:
    """Kill and remove the container that a replica has left behind, if its spec tells of one. Whether it does."""
    container = (read_json(directory / SPEC_FILE) or {}).get("container")
    if container:
        remove(container["engine"], container_name(directory))
    return bool(container)


def bring_image(engine: str, image: str, log: Callable[[str], None]) -> None:
    """Pull an image, if it is not on this machine under that name.

    Raises:
        EnvironmentFailedError: there is no such image, in the words of the engine.
    """
    if _ask(engine, "image", "inspect", image, limit_s=_ASK_LIMIT_S).returncode == 0:
        return
    log(f"Pulling the image: {image}")
    pulled = _ask(engine, "pull", image, limit_s=_PULL_LIMIT_S)
    if pulled.returncode != 0:
        raise EnvironmentFailedError(
            f"The image {image} is not on this machine and could not be pulled: {_last_line(pulled.stderr)}"
        )


def remove(engine: str, name: str) -> None:
    """Kill a container and remove it; fine if it is not there."""
    # Without the first, podman would be patient with what does not listen.
    for arguments in (("kill", name), ("rm", "--force", name)):
        _ask(engine, *arguments, limit_s=_ASK_LIMIT_S)


def _ask(engine: str, *arguments: str, limit_s: float) -> subprocess.CompletedProcess[bytes]:
    command = [engine, *arguments]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, ENGINE_FAILURES[0], b"", str(error).encode())


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it did not say why."
