"""What a replica is told and what it tells at the end: JSON files in its directory, and the names of the others.

`jobs` makes a `ReplicaSpec`, a backend writes it down, the runner reads it; the runner writes an `Outcome`, the
backend reads it.

    spec.json     what to run                              written by the backend before the runner starts
    runner.lock   held by the runner for its whole life
    runner.json   {pid, create_time} of the runner         its first act
    started       user code was begun, at this time in ns; it never is twice
    stop.json     {reason, grace_s}: asks the runner to end
    outcome.json  how it ended; once written, it stays
    parameters.json  in a trial: which of the tuned flags the trainer's parsers knew (replica/bootstrap.py)
    hypertune/    in a trial: what its trainer reports
    report.json   what a program of the engine itself has to tell; user code writes none
    log.jsonl     the log (telemetry.segments)
    reserve       keeps room on the disk for the outcome
    runner.log    what the runner itself had to complain about
    work/         the user process's working directory
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SPEC_FILE = "spec.json"
LOCK_FILE = "runner.lock"
RUNNER_FILE = "runner.json"
STARTED_FILE = "started"
STOP_FILE = "stop.json"
OUTCOME_FILE = "outcome.json"
REPORT_FILE = "report.json"
LOG_FILE = "log.jsonl"
RUNNER_LOG_FILE = "runner.log"
RESERVE_FILE = "reserve"
WORK_DIR = "work"

MARKER = "ENGINEHOUSE_REPLICA"
"""Environment variable that every process of a replica inherits: the absolute path of its directory."""

PARAMETERS_VARIABLE = "ENGINEHOUSE_PARAMETERS"
"""In a trial: the names of the flags that are tuned, as JSON; the bootstrap takes it out before user code runs."""

PARAMETERS_FILE = "parameters.json"
METRIC_FILE = "hypertune/output.metrics"

Reason = Literal["exited", "stopped", "environment_failed", "lost"]


@dataclass(frozen=True)
class PackageFile:
    """A user's package: where it came from (for the log) and the local copy to install."""

    uri: str
    path: str


@dataclass(frozen=True)
class Mount:
    """A file or directory of the host that a container sees at `target`.

    Attributes:
        way: it may be read, a copy of it may be written, or it itself (a directory).
    """

    source: str
    target: str
    way: Literal["read", "copy", "write"] = "read"


@dataclass(frozen=True)
class ContainerSpec:
    """What runs in place of a module.

    Attributes:
        engine: path of podman or docker.
        image: as `podman run` takes it.
        command: in place of the image's ENTRYPOINT and CMD; empty to keep them.
    """

    engine: str
    image: str
    command: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ContainerSpec:
        """The reverse of `asdict`."""
        mounts = tuple(Mount(**mount) for mount in value["mounts"])
        return cls(**{**value, "command": tuple(value["command"]), "mounts": mounts})


@dataclass(frozen=True)
class ReplicaSpec:
    """All that a runner needs to know.

    Attributes:
        task_name: `master-replica-0`; names the log's lines.
        module: run as `python -m` does; "" where a container runs instead.
        args: the user's arguments; `--job-dir JOB_DIR` follows them where job_dir is given.
        environment: set on top of the host's environment, whose PYTHON* and ENGINEHOUSE_* variables are left out.
        unset: variables of the host that the user process does not get.
        packages: installed in this order.
        runtime_version, python_version: resolved by the runtimes' catalogue.
        runtime_reason: why it chose these; "" where it has not chosen yet.
        runtimes_dir: cache of built environments.
        uv: path of the uv binary that builds them.
        grace_s: seconds between SIGTERM and SIGKILL for what the main process leaves behind.
        container: in place of a runtime, packages and a module; gets no variables but `environment`.
        memory_bytes, cpus: what all its processes together may use; 0 for no limit.
    """

    task_name: str
    module: str
    args: tuple[str, ...]
    job_dir: str | None
    environment: Mapping[str, str]
    packages: tuple[PackageFile, ...]
    runtime_version: str
    python_version: str | None
    runtimes_dir: str
    uv: str
    grace_s: float
    unset: tuple[str, ...] = ()
    runtime_reason: str = ""
    memory_bytes: int = 0
    cpus: float = 0.0
    container: ContainerSpec | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the program gets after its own name."""
        return self.args if self.job_dir is None else (*self.args, "--job-dir", self.job_dir)

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReplicaSpec:
        """The reverse of `to_json`.

        Raises:
            KeyError, TypeError: a part is missing or unknown.
        """
        packages = tuple(PackageFile(**package) for package in value["packages"])
        container = value.get("container")
        return cls(
            **{
                **value,
                "args": tuple(value["args"]),
                "packages": packages,
                "unset": tuple(value.get("unset", ())),
                "container": ContainerSpec.from_json(container) if container else None,
            }
        )


@dataclass(frozen=True)
class Outcome:
    """How a replica ended.

    Attributes:
        reason: `exited` the main process ended by itself; `stopped` it was asked to; `environment_failed` user code
            never began since its environment could not be made; `lost` the runner died without telling.
        exit_code: of the main process, None if it was ended by a signal or never ran.
        signal: number of the signal that ended the main process, else None.
        message: one or a few plain sentences for the job's owner; "" after a success.
        traceback: the last Python traceback that the replica printed, "" if none.
        started_ns: when user code began, None if it did not.
        ended_ns: when the last process of the replica was gone.
        out_of_memory: the main process was killed since memory ran out, the host's or what it may have.
    """

    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    traceback: str = ""
    started_ns: int | None = None
    ended_ns: int = 0
    out_of_memory: bool = False

    @property
    def succeeded(self) -> bool:
        """The main process ended by itself with status 0."""
        return self.reason == "exited" and self.exit_code == 0

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Outcome:
        """The reverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True)
class StopRequest:
    """What `stop.json` holds."""

    reason: str
    grace_s: float
    requested_ns: int = field(default=0)

    @classmethod
    def read(cls, directory: Path) -> StopRequest | None:
        """The request in a replica's directory, or None."""
        try:
            return cls(**json.loads((directory / STOP_FILE).read_bytes()))
        except FileNotFoundError:
            return None

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`."""
        return asdict(self)
