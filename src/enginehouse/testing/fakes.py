"""Stand-ins for the parts that run user code, for tests of what is around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from enginehouse.backends.base import Host, Phase, ReplicaStatus
from enginehouse.replica.spec import Outcome, ReplicaSpec


@dataclass
class FakeBackend:
    """`backends.base.Backend` that runs nothing; the test says how replicas fare."""

    launched: dict[Path, ReplicaSpec] = field(default_factory=dict)
    statuses: dict[Path, ReplicaStatus] = field(default_factory=dict)
    stops: dict[Path, str] = field(default_factory=dict)
    reaped: list[Path] = field(default_factory=list)
    fail_with: Exception | None = None
    has: Host = field(default_factory=lambda: Host(cpus=2))

    def host(self) -> Host:
        return self.has

    def launch(self, directory: Path, spec: ReplicaSpec) -> None:
        if self.fail_with is not None:
            raise self.fail_with
        assert directory not in self.launched, "launched twice"
        self.launched[directory] = spec
        self.statuses[directory] = ReplicaStatus(Phase.PREPARING)

    def status(self, directory: Path) -> ReplicaStatus:
        return self.statuses.get(directory, ReplicaStatus(Phase.ABSENT))

    def stop(self, directory: Path, *, reason: str, grace_s: float) -> None:
        self.stops.setdefault(directory, reason)
        if self.status(directory).phase is Phase.ABSENT:
            self.end(directory, Outcome("stopped"))

    def reap(self, directory: Path) -> None:
        assert self.statuses[directory].phase is Phase.ENDED, "reaped alive"
        self.reaped.append(directory)

    def run(self, directory: Path, since_ns: int) -> None:
        """User code begins."""
        self.statuses[directory] = ReplicaStatus(Phase.RUNNING, since_ns)

    def end(self, directory: Path, outcome: Outcome) -> None:
        """The replica is over."""
        self.statuses[directory] = ReplicaStatus(Phase.ENDED, outcome.started_ns, outcome)
