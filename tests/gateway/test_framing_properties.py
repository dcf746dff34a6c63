"""However a request is framed, and wherever TCP cuts it, the application gets the same request."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginehouse.testing.gateway import GatewayThread, read_response

BODIES = st.binary(max_size=3000)
FRAMINGS = st.sampled_from(["length", "chunked", "chunked and length", "identity and length"])
LINE_ENDS = st.sampled_from([b"\r\n", b"\n"])


def framed(body: bytes, framing: str, chunk_bytes: int, line_end: bytes) -> bytes:
    lines = [b"PUT http://storage.googleapis.com/b/o%2Fp?x=y HTTP/1.1", b"Host: storage.googleapis.com", b"X-A: b"]
    if "length" in framing:
        lines.append(b"Content-Length: %d" % len(body))
    if "chunked" in framing:
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    if "identity" in framing:
        lines.append(b"Transfer-Encoding: identity")
    return line_end.join([*lines, b"", b""]) + body


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=3),
    framing=FRAMINGS,
    chunk_bytes=st.integers(min_value=1, max_value=1000),
    line_end=LINE_ENDS,
    cuts=st.lists(st.floats(min_value=0, max_value=1), max_size=6),
)
def test_any_framing_gives_the_same_request(
    gateway: GatewayThread, bodies: list[bytes], framing: str, chunk_bytes: int, line_end: bytes, cuts: list[float]
):
    """The requests of one connection are pipelined, so a body that is read too far or too short breaks the next."""
    data = b"".join(framed(body, framing, chunk_bytes, line_end) for body in bodies)
    places = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
    with gateway.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in itertools.pairwise(places):
            connection.sendall(data[begin:end])
            time.sleep(0.0005)  # lets the gateway see the piece alone; nothing depends on it
        answers = [read_response(connection) for _ in bodies]
    assert [status for status, _, _ in answers] == [200] * len(bodies)
    for told, body in zip((json.loads(answer) for _, _, answer in answers), bodies, strict=True):
        assert (told["method"], told["raw_path"], told["query"]) == ("PUT", "/b/o%2Fp", "x=y")
        assert (told["size"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert ["x-a", "b"] in told["headers"]
        assert [value for name, value in told["headers"] if name == "content-length"] == (
            [] if "chunked" in framing else [str(len(body))]
        )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=300))
def test_arbitrary_bytes_are_answered_or_dropped(quick_gateway: GatewayThread, data: bytes):
    """Never a hang, and the gateway lives on."""
    with quick_gateway.connect(timeout_s=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 50"))
    with quick_gateway.connect() as connection:
        connection.sendall(b"GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(connection)[0] == 200
