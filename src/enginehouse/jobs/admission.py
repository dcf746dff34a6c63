"""The queue of one engine as it is now: what waits, what runs, and what `queue.decide` makes of it.

Follows the events of the store: a look at a long queue reads what came and went since the last one. Everything here
can be made again from the store. One thread decides; `position` may be asked by any.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from enginehouse.backends.base import Gpu
from enginehouse.core.clock import Clock
from enginehouse.core.names import JobName
from enginehouse.core.units import parse_duration_s
from enginehouse.jobs.capacity import Capacity
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.queue import ITS_TURN, Claim, Decisions, decide
from enginehouse.jobs.run import Run
from enginehouse.jobs.waiting import WaitingJobs
from enginehouse.metadata.base import MetadataStore
from enginehouse.metadata.records import JobRecord

_LOOK_AGAIN_S = 1.0
_TOLD_AT_ONCE = 100
"""Owners who learn of a new reason in one look; each costs a transaction, and jobs that run want to be looked at."""


class News(NamedTuple):
    """What the owner of a waiting job is to be told; `never` if it can't start as things are."""

    name: JobName
    reason: str
    never: bool


class Admission:
    """See the module.

    Args:
        capacity: what there is to give out.
    """

    def __init__(self, store: MetadataStore, capacity: Capacity, clock: Clock) -> None:
        self._store = store
        self._capacity = capacity
        self._clock = clock
        self._waiting = WaitingJobs()
        self._wait_until_ns: dict[JobName, float] = {}
        """When a job has waited too long, for those that have a limit."""
        self._seen_event: int | None = None
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
        return decide(
            [self._running_claim(job) for job in claims],
            self._waiting.lines,
            self._capacity.amounts,
            self._capacity.quotas,
        )

    def position(self, name: JobName) -> int:
        """A job's place in the queue (a tuning job's: of its first trial), from 1; 0 when it does not wait."""
        return self._waiting.position(name)

    def left(self, name: JobName) -> None:
        """A job has left the queue."""
        self._waiting.discard(name)
        self._wait_until_ns.pop(name, None)

    def news(self, decisions: Decisions) -> list[News]:
        """What owners of waiting jobs have not been told yet; that others go first, everybody knows.

        Of very many some, and the queue is due for another look.
        """
        found = (
            News(name, reason, line in decisions.never)
            for line in self._waiting.lines
            for told, names in line.told.items()
            if told != (reason := decisions.kept.get(line, ITS_TURN))
            for name in names
            if name != decisions.head
        )
        news = list(islice(found, _TOLD_AT_ONCE))
        if len(news) == _TOLD_AT_ONCE:
            self.note_change()
        head = decisions.head
        if head is not None and self._waiting.told(head) != decisions.head_reason:
            news.append(News(head, decisions.head_reason, never=False))
        return news

    def told(self, name: JobName, reason: str) -> None:
        """The owner of a waiting job knows the reason now."""
        self._waiting.tell(name, reason)

    def overdue(self) -> list[JobName]:
        """The jobs that have waited longer than their maxWaitTime."""
        now_ns = self._clock.time_ns()
        return [name for name, until_ns in self._wait_until_ns.items() if now_ns > until_ns]

    def _refresh(self) -> None:
        """Learn who has come and who has gone since the last look, or, at the first one, who is there."""
        if self._seen_event is None:
            newest, after = self._store.newest_event(), 0
            while page := self._store.queued_jobs(after=after):
                for job in page:
                    self._add(job)
                after = page[-1].sequence
            self._seen_event = newest
        moved, self._seen_event = self._store.moved_jobs(after=self._seen_event)
        for name in moved:
            job = self._store.get_job(name)
            if job.state == "QUEUED" and not job.is_tuning:
                self._add(job)
            else:
                self.left(name)

    def _add(self, job: JobRecord) -> None:
        if job.name in self._waiting:
            return
        demand = self._capacity.demand(job.name.project, Plan.from_json(job.plan))
        self._waiting.add(
            job.name, demand, priority=job.priority, sequence=job.sequence, told=job.waiting_reason or ITS_TURN
        )
        limit = _scheduling(job).get("maxWaitTime")
        has_run = job.start_time_ns is not None  # and gave way to another: what was waited for has been
        if limit and not has_run:
            self._wait_until_ns[job.name] = job.create_time_ns + parse_duration_s(limit) * 1e9

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
