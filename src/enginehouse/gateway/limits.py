"""How much of anything one client may use. Bodies have no size limit: they are never held."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The defaults are meant for real clients on slow machines; tests shorten the times."""

    head_bytes: int = 64 * 1024
    """Request line and headers together, and again the trailers of a chunked body."""
    headers: int = 200
    head_s: float = 30.0
    """From the first byte of a request to the end of its headers, however slowly they drip."""
    idle_s: float = 240.0
    """Between two requests of a connection, and before its first; as long as Google's own servers wait."""
    body_idle_s: float = 120.0
    """Without one byte of a body that the application waits for."""
    send_stall_s: float = 300.0
    """Without room for one more byte of an answer that the client does not read."""
    handshake_s: float = 30.0
    connect_s: float = 30.0
    """For reaching an origin or the upstream proxy, its CONNECT included."""
    forward_idle_s: float = 300.0
    """Without a byte from the origin of a request that is passed on."""
    drain_body_bytes: int = 1024 * 1024
    """Of a body that the application did not want: read to keep the connection; with more to come it is closed."""
    linger_s: float = 30.0
    """A closed connection is still read so long, so that a client that is sending gets to read the answer."""
    close_s: float = 10.0
    """For the last bytes to leave when a connection is closed."""
    connections: int = 4096
