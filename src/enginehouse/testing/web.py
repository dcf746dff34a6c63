"""Serve routes on a free loopback port for the length of a `with` block."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from enginehouse.api.protocol import BoundedProtocol

_START_TIMEOUT_S = 10.0


@contextmanager
def serving(routes: Sequence[BaseRoute], *, protocol: type[asyncio.Protocol] = BoundedProtocol) -> Iterator[str]:
    """Run a server for `routes` in a thread, set up as the engine's; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            Starlette(routes=list(routes)), log_config=None, access_log=False, lifespan="off", http=protocol
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
