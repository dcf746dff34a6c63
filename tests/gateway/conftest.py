"""Gateways for tests, on asyncio's own loop and on uvloop's, which differ in what their transports do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.types import ASGIApp

from enginehouse.gateway.limits import Limits
from enginehouse.testing.gateway import GatewayThread, LoopFactory, echo_app

QUICK = Limits(
    head_s=0.3, idle_s=0.5, body_idle_s=0.3, send_stall_s=1.0, linger_s=1.0, connect_s=2.0, forward_idle_s=0.5
)
"""Times that let a test see them pass."""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"], scope="session")
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    factory: LoopFactory = request.param
    return factory


@pytest.fixture(scope="session")
def gateway(loop_factory: LoopFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayThread]:
    """Before an application that tells what it got; nothing may be changed in it."""
    with GatewayThread(echo_app, tmp_path_factory.mktemp("ca"), loop_factory=loop_factory) as running:
        yield running


@pytest.fixture(scope="session")
def quick_gateway(loop_factory: LoopFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayThread]:
    """The same with short times."""
    with GatewayThread(echo_app, tmp_path_factory.mktemp("ca"), loop_factory=loop_factory, limits=QUICK) as running:
        yield running


@pytest.fixture
def serve(loop_factory: LoopFactory, tmp_path: Path) -> Iterator[Callable[..., GatewayThread]]:
    """Start gateways before any application; arguments as of `GatewayThread`, without the directory."""
    with contextlib.ExitStack() as stack:

        def start(app: ASGIApp, **arguments: Any) -> GatewayThread:
            return stack.enter_context(GatewayThread(app, tmp_path / "ca", loop_factory=loop_factory, **arguments))

        yield start
