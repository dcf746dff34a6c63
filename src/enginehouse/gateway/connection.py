"""One client of the gateway, from accept to close: who may come in, and where each request goes.

CONNECT HOST:443         ours: TLS ends here, and its requests are answered; others: a tunnel
CONNECT HOST:80          ours: the same without TLS, as httplib2 asks for plain http; others: a tunnel
GET http://HOST/path     ours: answered; others: passed on
GET /path, Host: HOST    ours: answered; others: refused, since nobody means this server itself
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from enginehouse.core.errors import EngineError
from enginehouse.core.loopback import LOOPBACK_PEERS
from enginehouse.gateway.ca import CertificateAuthority
from enginehouse.gateway.errors import BadRequest, LoopDetected, Misdirected, ProxyAuthRequired
from enginehouse.gateway.forward import forward, tunnel
from enginehouse.gateway.head import RequestHead
from enginehouse.gateway.hosts import HostRule, find_rule, split_authority
from enginehouse.gateway.http1 import Exchange, Origin, error_response, linger, make_scope, read_head, response_head
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream
from enginehouse.gateway.upstream import Upstream

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

_log = logging.getLogger(__name__)

_PORTS = {"https": 443, "http": 80}
_SCHEMES = {port: scheme for scheme, port in _PORTS.items()}
_LAST_CLOSE_S = 1.0
"""For a client to notice that its connection is closed when the gateway stops."""


class _Answer(Protocol):
    """A whole answer of status 200."""

    raw_headers: list[tuple[bytes, bytes]]
    body: bytes | memoryview


AtOnce = Callable[["Scope"], _Answer | None]


def nothing_at_once(_scope: Scope) -> None:
    """For applications that always want to be asked."""


@dataclass
class Services:
    """What all connections of a gateway share.

    Attributes:
        app: answers for our hosts.
        at_once: asked before `app` is.
        authority: vouches for them.
        upstream: leads to all others.
        via: this gateway's name for itself in Via headers.
        token: the password of clients from other machines; none of them may enter if it is empty.
        closing: set when the gateway is about to stop; connections then end with the request under way.
    """

    app: ASGIApp
    at_once: AtOnce
    authority: CertificateAuthority
    upstream: Upstream
    via: bytes
    token: str
    limits: Limits
    closing: bool = False


class Connection:
    """One client's connection. `run` is its whole life."""

    def __init__(self, stream: Stream, services: Services) -> None:
        self._stream = stream
        self._services = services
        self._limits = services.limits
        self._client = stream.peer
        self._idle = True
        self._authenticated = False
        self._origin: Origin | None = None  # whom the client has been connected to

    def close_if_idle(self) -> None:
        """Close a connection that waits for its next request."""
        if self._idle:
            self._stream.close_soon()

    async def refuse(self, error: EngineError) -> None:
        """Answer with an error, whatever was asked, and close."""
        headers = []
        if isinstance(error, ProxyAuthRequired):
            headers.append((b"proxy-authenticate", b'Basic realm="enginehouse"'))
        self._stream.write(error_response(error, headers=headers))
        await linger(self._stream, self._limits)
        await self._stream.close(self._limits.close_s)

    async def run(self) -> None:
        """Serve until the client goes, is idle for too long, or does what can't be understood."""
        try:
            while not self._services.closing and await self._serve_one():
                pass
        except EngineError as error:
            await self.refuse(error)
        except OSError as error:
            _log.debug("%s:%s is gone: %s", *self._client, error)
        except asyncio.CancelledError:
            self._stream.abort()
            raise
        except Exception:
            _log.exception("a connection of the gateway failed")
        finally:
            await self._stream.close(_LAST_CLOSE_S if self._services.closing else self._limits.close_s)

    async def _serve_one(self) -> bool:
        """One request; whether there can be another."""
        self._idle = True
        head = await read_head(self._stream, self._limits)
        self._idle = False
        if head is None:
            return False
        if self._origin is not None:
            return await self._serve_as_origin(head, self._origin)
        self._check_access(head)
        if self._services.via in _words(head, b"via"):
            raise LoopDetected("This request has been through this gateway before: proxies that name each other.")
        if head.method == "CONNECT":
            return await self._connect(head)
        if head.target.startswith("/"):
            return await self._serve_as_origin(head, None)
        origin, path = split_url(head.target)
        rule = find_rule(origin.host)
        if origin.scheme == "https" and (rule is None or not rule.serves(path)):
            raise BadRequest("An https URL of this host must be asked for through CONNECT.")
        return await self._serve(head, origin, path, rule)

    async def _connect(self, head: RequestHead) -> bool:
        host, port = split_authority(head.target, None)
        if head.content_length != 0:
            raise BadRequest("A CONNECT request has no body.")
        established = response_head(200, (), close=False)
        if find_rule(host) is None or port not in _SCHEMES:
            via = b", ".join([*_words(head, b"via"), self._services.via])
            origin_stream = await self._services.upstream.open_tunnel(host, port, via)
            self._stream.write(established)
            await tunnel(self._stream, origin_stream, self._limits)
            return False
        self._origin = Origin(_SCHEMES[port], host, port)
        if self._origin.scheme == "http":
            self._stream.write(established)
            return True
        authority = self._services.authority
        context = authority.context_if_ready(host)
        if context is None:
            context = await asyncio.to_thread(authority.context, host)
        if self._stream.has_data:
            raise BadRequest("The client did not wait for the tunnel to be there.")
        self._stream.write(established)
        try:
            await self._stream.start_tls(context, timeout_s=self._limits.handshake_s)
        except ssl.SSLError as error:
            # Some clients retry a certificate they don't trust for a minute without a word: say it here.
            _log.info("%s:%s makes no TLS connection to %s: %s", *self._client, host, error)
            return False
        return True

    async def _serve_as_origin(self, head: RequestHead, connected: Origin | None) -> bool:
        """A request as a server gets it.

        Args:
            connected: whom the client asked to be connected to; None when it came without asking.
        """
        if head.method == "CONNECT":
            raise BadRequest("A tunnel can't be asked for inside of another.")
        scheme = connected.scheme if connected is not None else "http"
        hosts = list(head.values(b"host"))
        if len(hosts) > 1 or (not hosts and head.version == "1.1"):
            raise BadRequest("The request needs one Host header.")
        if not head.target.startswith("/"):
            origin, path = split_url(head.target)
        elif hosts:
            origin, path = Origin(scheme, *split_authority(hosts[0].decode("latin-1"), _PORTS[scheme])), head.target
        elif connected is not None:
            origin, path = connected, head.target
        else:
            raise BadRequest("The request names no host.")
        rule = find_rule(origin.host)
        if rule is None or origin.scheme != scheme:
            raise Misdirected(
                f"{origin.authority} is not answered here. This is the gateway of Enginehouse, a proxy for Google's "
                'API hosts: run `eval "$(mle env)"` to use it.'
            )
        return await self._serve(head, origin, path, rule)

    async def _serve(self, head: RequestHead, origin: Origin, path: str, rule: HostRule | None) -> bool:
        """Answer a request, or pass it on."""
        services = self._services
        if rule is None or not rule.serves(path):
            if not await forward(self._stream, head, origin, path, services.upstream, services.via, self._limits):
                await linger(self._stream, self._limits)
            return False
        scope = make_scope(head, origin, path, self._client, {"proxy_authenticated": self._authenticated})
        if head.keep_alive and head.content_length == 0 and not head.expects_continue:
            answer = services.at_once(scope)
            if answer is not None:
                self._stream.write(response_head(200, answer.raw_headers, close=False) + answer.body)
                await self._stream.drain(self._limits.send_stall_s)
                return True
        exchange = Exchange(self._stream, head, scope, self._limits)
        if await exchange.run(services.app):
            return True
        if exchange.body_unread:
            await linger(self._stream, self._limits)
        return False

    def _check_access(self, head: RequestHead) -> None:
        """Let this machine's clients in, and others with the token.

        Raises:
            ProxyAuthRequired: from another machine, without it.
        """
        if self._client[0] in LOOPBACK_PEERS:
            return
        token = self._services.token.encode()
        for value in head.values(b"proxy-authorization"):
            scheme, _, credentials = value.partition(b" ")
            with contextlib.suppress(ValueError):
                if scheme.lower() == b"basic":
                    credentials = base64.b64decode(credentials).partition(b":")[2]
                if token and hmac.compare_digest(credentials.strip(), token):
                    self._authenticated = True
                    return
        raise ProxyAuthRequired(
            "Give the engine's token as the password of the proxy: https_proxy=http://enginehouse:TOKEN@HOST:PORT."
        )


def split_url(target: str) -> tuple[Origin, str]:
    """Origin and path of a request's target that is a whole URL.

    Raises:
        BadRequest: it is none, or one with a user or a fragment in it (RFC 9110 §4.2.4, RFC 9112 §3.2.2).
    """
    scheme, separator, rest = target.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _PORTS or "#" in rest:
        raise BadRequest("The target of a request is a path, or a URL that begins with http:// or https://.")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    origin = Origin(scheme, *split_authority(rest[:end], _PORTS[scheme]))
    path = rest[end:]
    return origin, path if path.startswith("/") else "/" + path


def _words(head: RequestHead, name: bytes) -> list[bytes]:
    return [word.strip() for value in head.values(name) for word in value.split(b",")]
