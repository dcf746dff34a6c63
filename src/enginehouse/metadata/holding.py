"""The lease that a reconciler acts and writes under, kept for as long as the reconciler works."""

from __future__ import annotations

from enginehouse.core.clock import Clock
from enginehouse.metadata.base import LeaseStore
from enginehouse.metadata.records import Lease

LEASE_S = 30.0


class HeldLease:
    """The lease on `resource`. For one thread; `current` may be read by any.

    Args:
        resource: what is leased, such as "reconcilers/jobs".
    """

    def __init__(self, store: LeaseStore, clock: Clock, resource: str) -> None:
        self._store = store
        self._clock = clock
        self._resource = resource
        self.current: Lease | None = None

    def hold(self) -> bool:
        """Take the lease or renew it, where half of its time is over. Whether it is held now."""
        if self.current is not None and self.current.expires_ns - self._clock.time_ns() > LEASE_S / 2 * 1e9:
            return True
        self.release()
        self.current = self._store.acquire_lease(self._resource, duration_s=LEASE_S)
        return self.current is not None

    def release(self) -> None:
        """Give it back; harmless when it is not held."""
        if self.current is not None:
            self._store.release_lease(self.current)
            self.current = None
