"""The gateway's server: a forward proxy on a port of its own.

Comes in: whatever a client with `https_proxy` and `http_proxy` sends. Goes out: requests for hosts of `hosts.HOSTS`
as calls of the engine's ASGI application; everything else to where it was going. The composition root starts and
stops a `GatewayServer` on the engine's loop; `connection` tells what happens to each request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginehouse.core.clock import Clock
from enginehouse.core.errors import EngineError, InvalidArgument
from enginehouse.core.loopback import LOOPBACK_HOSTS
from enginehouse.gateway.ca import CertificateAuthority
from enginehouse.gateway.connection import AtOnce, Connection, Services, nothing_at_once
from enginehouse.gateway.environment import original_environment
from enginehouse.gateway.errors import TooManyConnections
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream
from enginehouse.gateway.trust import BUNDLE_NAME, TrustBundle
from enginehouse.gateway.upstream import Upstream

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_log = logging.getLogger(__name__)

_BACKLOG = 2048
_TRUST_REFRESH_S = 60.0


class GatewayServer:
    """The forward proxy.

    Args:
        app: answers the requests to our hosts. Its scopes carry, in `extensions["enginehouse.gateway"]`,
            `{"proxy_authenticated": bool}`: whether a client from another machine showed the token to the proxy.
        at_once: asked before `app` is; the answer to a request without a body if there is no need to wait for it.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        ca_dir: for the authority's files, see `ca` and `trust`.
        environ: names the proxy that leads out of here, and the certificates that are trusted; our own variables in
            it don't count.
        token: what clients from other machines must send as the password of the proxy.
        limits: what one client may use.
        clock: for the dates in certificates.

    Raises:
        InvalidArgument: a host that is not loopback without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        at_once: AtOnce = nothing_at_once,
        host: str = "127.0.0.1",
        port: int = 0,
        ca_dir: Path,
        environ: Mapping[str, str] = os.environ,
        token: str = "",
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        if host not in LOOPBACK_HOSTS and not token:
            raise InvalidArgument(f"A gateway on {host} lets other machines in; it needs a token.", field="token")
        self._app = app
        self._at_once = at_once
        self._host = host
        self._port = port
        self._ca_dir = ca_dir
        self._environ = original_environment(environ)
        self._token = token
        self._limits = limits or Limits()
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._services: Services
        self._trust: TrustBundle

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def authority(self) -> CertificateAuthority:
        """The private CA, once started."""
        return self._services.authority

    @property
    def bundle_path(self) -> Path:
        """The file of certificates for clients, the system's and ours, once started."""
        return self._trust.path

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: the address is taken.
            FailedPrecondition: this machine has no certificates for other hosts.
        """
        await asyncio.to_thread(self._prepare)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Stream(self._accept), self._host, self._port, backlog=_BACKLOG, reuse_address=True
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._services.upstream.set_own_address(self._host, self._port)
        self._refreshing = asyncio.create_task(self._keep_trust_fresh())
        return self._port

    async def close(self, drain_s: float = 5.0) -> None:
        """Stop listening, let requests under way come to their end for `drain_s`, then break off."""
        if self._server is None:
            return
        self._services.closing = True
        self._server.close()
        if self._refreshing is not None:
            self._refreshing.cancel()
        for connection in self._connections.values():
            connection.close_if_idle()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=drain_s)
        remaining = list(self._connections)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)

    def _prepare(self) -> None:
        authority = CertificateAuthority(self._ca_dir, self._clock)
        self._trust = TrustBundle(self._ca_dir / BUNDLE_NAME, authority.certificate_pem, self._environ)
        self._trust.refresh()
        via = f"1.1 enginehouse-{secrets.token_hex(4)}".encode()
        trusted = ssl.create_default_context(cafile=str(self._trust.path))
        upstream = Upstream(self._environ, self._limits, trusted)
        self._services = Services(self._app, self._at_once, authority, upstream, via, self._token, self._limits)

    async def _keep_trust_fresh(self) -> None:
        while True:
            await asyncio.sleep(_TRUST_REFRESH_S)
            try:
                await asyncio.to_thread(self._trust.refresh)
            except (OSError, EngineError):
                _log.exception("the bundle of certificates could not be written anew")

    def _accept(self, stream: Stream) -> None:
        connection = Connection(stream, self._services)
        if len(self._connections) < self._limits.connections:
            life = connection.run()
        else:
            life = connection.refuse(TooManyConnections("The gateway has as many connections open as it may."))
        task = asyncio.get_running_loop().create_task(life)
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)
