"""A storage API on a loopback port, over a store in a temporary directory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from enginehouse.api.storage import storage_routes
from enginehouse.core.clock import SystemClock
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.web import serving


class CurrentRoutes(BaseRoute):
    """The routes of the test that runs now, so that one server serves all tests: to stop one takes 0.2 s."""

    def __init__(self) -> None:
        self.routes: Sequence[BaseRoute] = ()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        for route in self.routes:
            match, child = route.matches(scope)
            if match is not Match.NONE:
                return match, {**child, "current_route": route}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["current_route"].handle(scope, receive, send)


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, CurrentRoutes]]:
    current = CurrentRoutes()
    with serving([current]) as url:
        yield url, current


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalObjectStore]:
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    yield store
    store.close()


@pytest.fixture
def url(store: LocalObjectStore, server: tuple[str, CurrentRoutes]) -> str:
    url, current = server
    current.routes = storage_routes(store)
    return url
