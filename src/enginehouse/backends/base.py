"""The contract of a backend: launch a replica, say how it is, stop it, leave nothing behind.

`jobs` calls it with a replica directory and a spec; `enginehouse.testing.backends.BackendContract` is the test that
every implementation must pass.

Rules for all methods:
    * The replica directory is the replica's identity and the only state. Nothing is kept in the engine, so a method
      may be called by an engine that was started after the replica.
    * Idempotent and safe at any moment: before the launch, while a dead engine's launch hangs half done, after the
      end.
    * Safe from any thread and from several processes at once. They return quickly (well under a second) and never
      wait for user code; `reap` and a `status` that finds a dead runner may take a second or two.
    * User code is run at most once per directory, whatever happens. To try again, launch into a new directory.
    * They raise OSError where the host fails (a full disk, no more processes); calling again is always right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from enginehouse.replica.spec import Outcome, ReplicaSpec

__all__ = ["Backend", "Gpu", "Host", "Outcome", "Phase", "ReplicaSpec", "ReplicaStatus", "RunsContainers"]


class Phase(StrEnum):
    """How far a replica is. It only moves forward.

    ABSENT     nothing runs and nothing ran: `launch` is to be called (again)
    PREPARING  its runner is at work: runtime and packages
    RUNNING    user code was begun
    ENDED      no user code runs and none will; there is an outcome
    """

    ABSENT = "ABSENT"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    ENDED = "ENDED"


@dataclass(frozen=True)
class ReplicaStatus:
    """How a replica is. `outcome` is there exactly when the phase is ENDED."""

    phase: Phase
    running_since_ns: int | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Gpu:
    """A device as CUDA_VISIBLE_DEVICES names it; name and memory (MiB) where they are known."""

    id: str
    name: str = ""
    memory_mib: int = 0


@dataclass(frozen=True)
class Host:
    """What there is for replicas: cores, GPUs, and memory in GiB (0 if unknown)."""

    cpus: int
    gpus: tuple[Gpu, ...] = ()
    memory_gib: float = 0.0


class Backend(Protocol):
    """A place where replicas run; see the module's rules."""

    def host(self) -> Host:
        """What there is for replicas; asked once, when the engine starts."""
        ...

    def launch(self, directory: Path, spec: ReplicaSpec) -> None:
        """Start the replica unless it was started already.

        A launch that a kill cut in the middle leaves the phase ABSENT (launch again) or a running replica. When a
        stop was asked before, the replica ends as `stopped` without running user code.
        """
        ...

    def status(self, directory: Path) -> ReplicaStatus:
        """How it is now. A runner that died without an outcome is given the outcome `lost` here, for good."""
        ...

    def stop(self, directory: Path, *, reason: str, grace_s: float) -> None:
        """Ask the replica to end: SIGTERM to all its processes, SIGKILL after `grace_s` seconds.

        A replica that has not begun ends as `stopped` at once. A second call keeps the first reason and may shorten
        the grace. The outcome is `exited` where user code ended by itself before the request reached it.
        """
        ...

    def reap(self, directory: Path) -> None:
        """After ENDED: return when no process of the replica is left, killing those that are."""
        ...


@runtime_checkable
class RunsContainers(Protocol):
    """What a backend can do that runs a spec with a container."""

    def container_engine(self) -> str:
        """What `ContainerSpec.engine` is to be. Any thread; may take some seconds when it looks.

        Raises:
            FailedPrecondition: there is none, with what to install.
        """
        ...
