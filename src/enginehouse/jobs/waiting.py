"""The jobs that wait, in the order of the queue; neither a look nor a place takes longer the more there are.

Jobs of one project that ask for the same stand in one line: where one of them can't start, nobody behind it can. So
`queue.decide` looks at lines, not at jobs. Called by `jobs.admission`; one thread changes it, any may ask for places.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enginehouse.core.names import JobName

Amounts = Mapping[str, float]
"""Dimension → how much: "jobs", "cpus", "memory" (GiB), "gpus", "ml_units" (training units per hour)."""

Place = tuple[int, int, JobName]
"""Of a waiting job: minus its priority, its sequence number, its name. The smallest is the first of the queue."""

_LineKey = tuple[str, frozenset[tuple[str, float]]]


@dataclass(eq=False)
class Line:
    """Waiting jobs of one project that ask for the same.

    Attributes:
        demand: what each of them takes as long as it runs.
        places: theirs, in order.
        told: reason → those whose owners were told it last.
    """

    project: str
    demand: Amounts
    places: list[Place] = field(default_factory=list)
    told: defaultdict[str, set[JobName]] = field(default_factory=lambda: defaultdict(set))


@dataclass
class _Waiting:
    place: Place
    line: Line
    told: str


class WaitingJobs:
    """See the module."""

    def __init__(self) -> None:
        self._jobs: dict[JobName, _Waiting] = {}
        self._order: list[Place] = []
        self._lines: dict[_LineKey, Line] = {}
        self._trials: defaultdict[JobName, list[Place]] = defaultdict(list)
        self._lock = threading.Lock()

    def __contains__(self, name: JobName) -> bool:
        return name in self._jobs

    def __iter__(self) -> Iterator[JobName]:
        """All of them, the first first."""
        return (name for _priority, _sequence, name in self._order)

    @property
    def lines(self) -> Collection[Line]:
        """All lines; none is empty."""
        return self._lines.values()

    def add(self, name: JobName, demand: Amounts, *, priority: int, sequence: int, told: str) -> None:
        """Let a job wait; of one that waits already, nothing changes.

        Args:
            sequence: grows with each job that came.
            told: the reason that its owner was told last.
        """
        if name in self._jobs:
            return
        place = (-priority, sequence, name)
        line = self._lines.setdefault(_line_key(name, demand), Line(name.project, demand))
        line.told[told].add(name)
        self._jobs[name] = _Waiting(place, line, told)
        with self._lock:
            for places in self._lists_of(name, line):
                insort(places, place)

    def discard(self, name: JobName) -> None:
        """A job waits no more; harmless for one that does not."""
        waiting = self._jobs.pop(name, None)
        if waiting is None:
            return
        line = waiting.line
        _forget(waiting)
        with self._lock:
            for places in self._lists_of(name, line):
                del places[bisect_left(places, waiting.place)]
            if not self._trials[name.job]:
                del self._trials[name.job]
        if not line.places:
            del self._lines[_line_key(name, line.demand)]

    def tell(self, name: JobName, reason: str) -> None:
        """The owner of a waiting job knows the reason now."""
        waiting = self._jobs[name]
        _forget(waiting)
        waiting.line.told[reason].add(name)
        waiting.told = reason

    def told(self, name: JobName) -> str:
        """What the owner of a waiting job was told last."""
        return self._jobs[name].told

    def position(self, name: JobName) -> int:
        """A job's place in the queue (a tuning job's: of its first trial), from 1; 0 when it does not wait."""
        with self._lock:
            places = self._trials.get(name.job)
            return bisect_left(self._order, places[0]) + 1 if places else 0

    def _lists_of(self, name: JobName, line: Line) -> Sequence[list[Place]]:
        return self._order, line.places, self._trials[name.job]


def _forget(waiting: _Waiting) -> None:
    """Take a job out of those who were told the same."""
    told = waiting.line.told
    told[waiting.told].discard(waiting.place[2])
    if not told[waiting.told]:
        del told[waiting.told]


def _line_key(name: JobName, demand: Amounts) -> _LineKey:
    return name.project, frozenset(demand.items())
