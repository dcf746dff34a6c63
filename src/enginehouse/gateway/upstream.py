"""The way out: connections to other hosts, directly or through the proxy that the environment names.

A gateway that is wired into a shell must not take itself for the way out. Callers give the environment without our
own variables (`environment.original_environment`), this module knows its own address, and `Via` catches what is
left, such as two engines that name each other.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from enginehouse.gateway.errors import BadGateway, BadRequest, GatewayTimeout
from enginehouse.gateway.head import find_head_end
from enginehouse.gateway.hosts import split_authority
from enginehouse.gateway.limits import Limits
from enginehouse.gateway.stream import Stream

_log = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class UpstreamProxy:
    """A proxy of somebody else.

    Attributes:
        secure: whether the proxy itself is spoken to in TLS.
        authorization: the Proxy-Authorization header, if the URL had a user in it.
    """

    host: str
    port: int
    secure: bool
    authorization: bytes | None

    @classmethod
    def parse(cls, url: str) -> UpstreamProxy:
        """Parse what `https_proxy` and its like hold; the scheme may be missing.

        Raises:
            ValueError: it is no URL of an HTTP proxy.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"not an HTTP proxy: {parts.scheme}://{parts.hostname}")
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = b"Basic " + base64.b64encode(pair.encode())
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return cls(parts.hostname, port, parts.scheme == "https", authorization)


@dataclass(frozen=True)
class Outgoing:
    """An open connection for one request.

    Attributes:
        proxy: whom it leads to, if not to the origin itself; then the request's target is the whole URL.
    """

    stream: Stream
    proxy: UpstreamProxy | None


class Upstream:
    """Opens connections to hosts that are not ours.

    Args:
        environ: where the proxies are named, as curl and most others read it: `https_proxy`, `http_proxy`,
            `all_proxy` and `no_proxy`, in lower case before upper case.
        trust: certificate authorities of other hosts, for the requests that are passed on in TLS.
    """

    def __init__(self, environ: Mapping[str, str], limits: Limits, trust: ssl.SSLContext) -> None:
        self._limits = limits
        self._trust = trust
        self._own_addresses: frozenset[tuple[str, int]] = frozenset()
        self._proxies = {scheme: _proxy_of(environ, scheme) for scheme in _DEFAULT_PORTS}
        self._direct = _NoProxy(_variable(environ, "no_proxy"))

    def set_own_address(self, host: str, port: int) -> None:
        """Tell where this gateway listens, so that it never connects to itself as a proxy."""
        self._own_addresses = frozenset((name, port) for name in (host, "127.0.0.1", "localhost", "::1"))

    def proxy_for(self, scheme: str, host: str, port: int) -> UpstreamProxy | None:
        """The proxy that leads to an origin, None for the direct way."""
        proxy = self._proxies[scheme]
        if proxy is None or (proxy.host, proxy.port) in self._own_addresses or self._direct.matches(host, port):
            return None
        return proxy

    async def open_tunnel(self, host: str, port: int, via: bytes) -> Stream:
        """Connect to an origin for bytes that are none of our business.

        Args:
            via: the Via header for a proxy on the way.

        Raises:
            BadGateway, GatewayTimeout: it, or the proxy before it, can't be reached or refuses.
        """
        proxy = self.proxy_for("https", host, port)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                if proxy is None:
                    return await self._connect(host, port)
                stream = await self._connect_to_proxy(proxy)
                try:
                    await self._ask_for_tunnel(stream, proxy, host, port, via)
                except BaseException:
                    stream.abort()
                    raise
                return stream
        except TimeoutError:
            raise GatewayTimeout(f"{host}:{port} can't be reached in {self._limits.connect_s:g} seconds.") from None

    async def open_request(self, scheme: str, host: str, port: int, via: bytes) -> Outgoing:
        """Connect for one HTTP request to an origin; arguments as of `open_tunnel`.

        Raises:
            BadGateway, GatewayTimeout: as `open_tunnel`, or the origin's certificate is not trusted.
        """
        if scheme == "https":
            stream = await self.open_tunnel(host, port, via)
            await self._start_tls(stream, host)
            return Outgoing(stream, None)
        proxy = self.proxy_for(scheme, host, port)
        try:
            async with asyncio.timeout(self._limits.connect_s):
                if proxy is not None:
                    return Outgoing(await self._connect_to_proxy(proxy), proxy)
                return Outgoing(await self._connect(host, port), None)
        except TimeoutError:
            raise GatewayTimeout(f"{host}:{port} can't be reached in {self._limits.connect_s:g} seconds.") from None

    async def _connect(self, host: str, port: int) -> Stream:
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.create_connection(Stream, host, port)
        except OSError as error:
            raise BadGateway(f"{host}:{port} can't be reached: {error.strerror or error}.") from None
        return stream

    async def _connect_to_proxy(self, proxy: UpstreamProxy) -> Stream:
        stream = await self._connect(proxy.host, proxy.port)
        if proxy.secure:
            await self._start_tls(stream, proxy.host)
        return stream

    async def _start_tls(self, stream: Stream, host: str) -> None:
        try:
            await stream.start_tls(self._trust, timeout_s=self._limits.handshake_s, server_hostname=host)
        except OSError as error:
            stream.abort()
            raise BadGateway(f"No TLS with {host}: {error}.") from None

    async def _ask_for_tunnel(self, stream: Stream, proxy: UpstreamProxy, host: str, port: int, via: bytes) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1".encode(), b"Host: " + authority.encode(), b"Via: " + via]
        if proxy.authorization:
            lines.append(b"Proxy-Authorization: " + proxy.authorization)
        stream.write(b"\r\n".join([*lines, b"", b""]))
        buffer = b""
        while (end := find_head_end(buffer)) < 0:
            data = await stream.read()
            if not data or len(buffer) > self._limits.head_bytes:
                raise BadGateway(f"The upstream proxy {proxy.host}:{proxy.port} does not answer as a proxy.")
            buffer += data
        status = buffer.split(b"\n", 1)[0].decode("latin-1").strip().partition(" ")[2]
        if not status.startswith("2"):
            raise BadGateway(f"The upstream proxy {proxy.host}:{proxy.port} refuses {authority}: {status}.")
        stream.unread(buffer[end:])


class _NoProxy:
    """The hosts of a `no_proxy` variable: names with all below them, addresses and networks."""

    def __init__(self, text: str) -> None:
        self._everything = False
        self._names: list[tuple[str, int | None]] = []
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in text.replace(",", " ").split():
            if entry == "*":
                self._everything = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                self._add_name(entry)

    def _add_name(self, entry: str) -> None:
        try:
            host, port = split_authority(entry.removeprefix("*").removeprefix("."), 0)
        except BadRequest:
            _log.warning("no_proxy: %r is not a host; it is ignored", entry)
            return
        self._names.append((host, port or None))

    def matches(self, host: str, port: int) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if self._everything or host == "localhost" or (address is not None and address.is_loopback):
            return True
        if address is not None and any(address in network for network in self._networks):
            return True
        return any(
            (host == name or host.endswith(f".{name}")) and wanted in (None, port) for name, wanted in self._names
        )


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _proxy_of(environ: Mapping[str, str], scheme: str) -> UpstreamProxy | None:
    url = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    if not url:
        return None
    try:
        return UpstreamProxy.parse(url)
    except ValueError as error:
        _log.warning("%s_proxy is ignored: %s", scheme, error)
        return None
