"""A real storage API to speak to: one server for all tests, an empty store for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.sdk.storage import Storage
from enginehouse.sdk.transport import Transport
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving


class Switch:
    """Hands requests to the app of the test that runs."""

    def __init__(self) -> None:
        self.app = Starlette()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[Switch, str]]:
    switch = Switch()
    with serving([Mount("/", app=switch)]) as url:
        yield switch, url


@pytest.fixture
def storage(server: tuple[Switch, str], tmp_path: Path) -> Iterator[Storage]:
    """A client of an empty store with the bucket `bkt`."""
    switch, url = server
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    switch.app = Starlette(routes=storage_routes(store))
    transport = Transport(lambda: url)
    storage = Storage(transport, "p", sleep=lambda _: None)
    storage.create_bucket("bkt")
    yield storage
    transport.close()
    store.close()
