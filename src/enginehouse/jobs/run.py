"""How a job's plan is being carried out: what its replicas were given, and how often they were begun.

Stored with the job as JSON and changed in the same transactions, so a new engine goes on where the last one was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from enginehouse.core.names import JobName
from enginehouse.metadata.records import JobRecord
from enginehouse.schemas.ml_v1 import JobState


@dataclass(frozen=True)
class Ending:
    """How a job will end once its last replica is gone; decided, since a new engine must not judge again."""

    state: JobState
    error_message: str
    ended_ns: int


@dataclass(frozen=True)
class Run:
    """The state of a job's replicas beyond what they themselves leave on disk.

    Attributes:
        ports: task name → the ports that are its own; they stay the same when it is restarted.
        devices: task name → ids of its GPUs.
        launches: task name → how often it was begun anew; names its directory.
        restarts: task name → how often it was restarted alone since the whole job was begun last.
        retries: how often the whole job was begun anew after failures.
        again: all replicas are being stopped, to begin anew at once ("retry") or to go back to the queue.
        reason: why, when `again` is set.
        ending: the job is decided; what is left of its replicas is being stopped.
    """

    ports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    launches: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    retries: int = 0
    again: Literal["", "retry", "requeue"] = ""
    reason: str = ""
    ending: Ending | None = None

    def restarted(self, task: str) -> Run:
        """After one replica has ended and is to be begun anew."""
        return replace(
            self,
            launches={**self.launches, task: self.launches.get(task, 0) + 1},
            restarts={**self.restarts, task: self.restarts.get(task, 0) + 1},
        )

    def begun_anew(self, tasks: tuple[str, ...]) -> Run:
        """After all replicas have ended and all are to be begun anew."""
        launches = {**self.launches, **{task: self.launches.get(task, 0) + 1 for task in tasks}}
        if self.again == "requeue":  # placed anew when it comes out of the queue
            return Run(launches=launches, retries=self.retries)
        return replace(self, launches=launches, restarts={}, retries=self.retries + 1, again="", reason="")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Run:
        if not value:
            return cls()
        ending = value["ending"]
        return cls(
            **{
                **value,
                "ports": {task: tuple(ports) for task, ports in value["ports"].items()},
                "devices": {task: tuple(ids) for task, ids in value["devices"].items()},
                "ending": Ending(**ending) if ending else None,
            }
        )


def replica_directory(jobs_dir: Path, name: JobName, task_name: str, launch: int = 0) -> Path:
    """Where the files of one launch of a replica lie; the one place that knows."""
    job = jobs_dir / name.project / name.job_id
    if name.trial_id:
        job = job / "trials" / name.trial_id
    return job / (f"{task_name}.{launch}" if launch else task_name)


def launch_directories(jobs_dir: Path, job: JobRecord, task_name: str) -> list[Path]:
    """The directories of all launches of a replica, in their order; the last one may not be there yet."""
    launches = Run.from_json(job.run).launches.get(task_name, 0)
    return [replica_directory(jobs_dir, job.name, task_name, launch) for launch in range(launches + 1)]
