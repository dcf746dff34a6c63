"""A real storage API to speak to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.transport import Transport
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving


@pytest.fixture
def storage_url(tmp_path: Path) -> Iterator[str]:
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    with serving(storage_routes(store)) as url:
        yield url
    store.close()


@pytest.fixture
def storage(storage_url: str) -> Storage:
    """A client with an empty bucket `bkt`."""
    storage = Storage(Transport(lambda: storage_url), "p", sleep=lambda _: None)
    storage.create_bucket("bkt")
    return storage
