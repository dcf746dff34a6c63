"""The queue of one engine as it is now: what waits, what runs, and what `queue.decide` makes of it.

Keeps in memory what each waiting job asks for, so that a look at a long queue reads its names alone; everything here
can be made again from the store. One thread decides; `position` may be asked by any.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginehouse.backends.base import Gpu
from enginehouse.core.clock import Clock
from enginehouse.core.names import JobName
from enginehouse.core.units import parse_duration_s
from enginehouse.jobs.capacity import Capacity
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.queue import ITS_TURN, Claim, Decisions, decide
from enginehouse.jobs.run import Run
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord

_LOOK_AGAIN_S = 1.0


@dataclass
class _Queued:
    """A waiting job. `wait_until_ns` is when it has waited too long; `reason` is what its owner was told last."""

    claim: Claim
    reason: str
    wait_until_ns: float


class Admission:
    """See the module.

    Args:
        capacity: what there is to give out.
    """

    def __init__(self, store: MetadataStore, capacity: Capacity, clock: Clock) -> None:
        self._store = store
        self._capacity = capacity
        self._clock = clock
        self._by_sequence: dict[int, _Queued] = {}
        self._queued: dict[JobName, _Queued] = {}
        self._positions: Mapping[JobName, int] = {}
        self._changed = threading.Event()
        self._changed.set()
        self._looked_s = 0.0

    def note_change(self) -> None:
        """A job came, ended or was changed: the queue is to be looked at."""
        self._changed.set()

    def is_due(self) -> bool:
        """Whether the queue is to be looked at; if not, nothing that it depends on has changed."""
        return self._changed.is_set() or self._clock.monotonic() - self._looked_s >= _LOOK_AGAIN_S

    def decide(self, running: Sequence[JobRecord]) -> Decisions:
        """Look at the queue.

        Args:
            running: all jobs past the queue, in the order in which they came.
        """
        self._changed.clear()
        self._looked_s = self._clock.monotonic()
        self._refresh()
        claims = sorted(running, key=lambda job: job.start_time_ns or job.create_time_ns)
        decisions = decide(
            [self._running_claim(job) for job in claims],
            [queued.claim for queued in self._queued.values()],
            self._capacity.amounts,
            self._capacity.quotas,
        )
        positions: dict[JobName, int] = {}
        for at, name in enumerate(decisions.waiting, 1):
            positions.setdefault(name.job, at)
        self._positions = positions
        return decisions

    def position(self, name: JobName) -> int:
        """A job's place in the queue (a tuning job's: of its first trial), from 1; 0 when it does not wait."""
        return self._positions.get(name, 0)

    def news(self, decisions: Decisions) -> dict[JobName, str]:
        """What owners of waiting jobs have not been told yet; that others go first, everybody knows."""
        return {
            name: reason
            for name, reason in decisions.waiting.items()
            if (self._queued[name].reason or ITS_TURN) != reason
        }

    def told(self, name: JobName, reason: str) -> None:
        """The owner of a waiting job knows the reason now."""
        self._queued[name].reason = reason

    def overdue(self) -> list[JobName]:
        """The jobs that have waited longer than their maxWaitTime."""
        now_ns = self._clock.time_ns()
        return [name for name, queued in self._queued.items() if now_ns > queued.wait_until_ns]

    def _refresh(self) -> None:
        """Read what is new in the queue, forget what has left it."""
        known = self._by_sequence
        self._by_sequence = {
            sequence: known.get(sequence) or self._read(sequence) for sequence in self._store.queued_jobs()
        }
        self._queued = {queued.claim.name: queued for queued in self._by_sequence.values()}

    def _read(self, sequence: int) -> _Queued:
        job = self._store.job_of(sequence)
        demand = self._capacity.demand(job.name.project, Plan.from_json(job.plan))
        limit = _scheduling(job).get("maxWaitTime")
        has_run = job.start_time_ns is not None  # and gave way to another: what was waited for has been
        wait_until_ns = job.create_time_ns + parse_duration_s(limit) * 1e9 if limit and not has_run else float("inf")
        return _Queued(Claim(job.name, demand, job.priority), job.waiting_reason, wait_until_ns)

    def _running_claim(self, job: JobRecord) -> Claim:
        run = Run.from_json(job.run)
        demand = self._capacity.demand(job.name.project, Plan.from_json(job.plan))
        has = sum(len(ids) for ids in run.devices.values())  # capacity may have been another when it started
        return Claim(
            job.name,
            {**demand, "gpus": has},
            job.priority,
            gives_way=_scheduling(job).get("strategy") == "LOW_COST",
            is_leaving=bool(run.again or run.ending) or job.state == "CANCELLING",
        )


class Devices:
    """The GPUs of an engine and who has them; thread-safe."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = tuple(gpus)
        self._holders: dict[str, JobName] = {}
        self._lock = threading.Lock()

    def claim(self, job: JobName, wanted: Mapping[str, int]) -> dict[str, tuple[str, ...]] | None:
        """Devices for a whole job, or None if not all can be had; what the job has counts as free.

        Args:
            wanted: task name → how many.
        """
        with self._lock:
            free = [gpu.id for gpu in self._gpus if self._holders.get(gpu.id, job) == job]
            if sum(wanted.values()) > len(free):
                return None
            given: dict[str, tuple[str, ...]] = {}
            for task, count in wanted.items():
                given[task], free = tuple(free[:count]), free[count:]
            self._holders.update({device: job for ids in given.values() for device in ids})
            return given

    def hold(self, job: JobName, devices: Mapping[str, Sequence[str]]) -> None:
        """Keep what an engine before this one gave out."""
        with self._lock:
            self._holders.update({device: job for ids in devices.values() for device in ids})

    def release(self, job: JobName) -> None:
        """Take back all that a job has."""
        with self._lock:
            self._holders = {device: holder for device, holder in self._holders.items() if holder != job}

    def holders(self) -> list[tuple[Gpu, JobName | None]]:
        """Every device and who has it."""
        with self._lock:
            return [(gpu, self._holders.get(gpu.id)) for gpu in self._gpus]


def _scheduling(job: JobRecord) -> Mapping[str, str]:
    request = job.request
    return request.get("trainingInput", {}).get("scheduling") or {}
