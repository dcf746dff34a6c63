"""Clients that mean harm, or are broken: refused or dropped in bounded time and memory, never more."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import pytest

from enginehouse.gateway.limits import Limits
from enginehouse.testing.gateway import GatewayThread, echo_app, read_all, read_response, read_until

Serve = Callable[..., GatewayThread]


def refusal(gateway: GatewayThread, request: bytes) -> tuple[int, str]:
    """Status and message of the answer, after which the connection must be closed."""
    with gateway.connect(timeout_s=10) as connection:
        connection.sendall(request)
        status, headers, body = read_response(connection)
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert read_all(connection) == b""
    error = json.loads(body)["error"]
    assert error["code"] == status
    return status, error["message"]


def get(target: bytes = b"http://storage.googleapis.com/b/o", *headers: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: storage.googleapis.com", *headers, b"", b""])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get(b"http://storage.googleapis.com/", *[b"A: b"] * 10_000), 431),
        (get(b"http://storage.googleapis.com/", *[b"A: b"] * 201), 431),
        (get(b"http://storage.googleapis.com/", b"A: " + b"b" * 70_000), 431),
        (get(b"http://storage.googleapis.com/" + b"b" * 70_000), 431),
        (b"A" * 100_000, 431),
        (get(b"http://storage.googleapis.com/", b"A: b\0c"), 400),
        (get(b"http://storage.googleapis.com/", b"A\0: c"), 400),
        (get(b"http://storage.googleapis.com/\0"), 400),
        (get(b"http://storage.googleapis.com/", b"Content-Length: 1", b"Content-Length: 2"), 400),
        (get(b"http://storage.googleapis.com/", b"Transfer-Encoding: gzip"), 400),
        (get(b"http://user:password@storage.googleapis.com/"), 400),
        (get(b"http://storage.googleapis.com@evil.example/"), 400),
        (get(b"http://storage.googleapis.com:0/"), 400),
        (get(b"http://storage.googleapis.com:99999/"), 400),
        (get(b"http://storage.googleapis.com:+80/"), 400),
        (get(b"http://storage.googleapis.com\\@evil.example/"), 400),
        (get(b"http:///b/o"), 400),
        (get(b"http://[::1/"), 400),
        (get(b"http://[zz]/"), 400),
        (get(b"ftp://storage.googleapis.com/"), 400),
        (get(b"https://evil.example/"), 400),
        (get(b"http://storage.googleapis.com/#fragment"), 400),
        (get(b"*"), 400),
        (get(b"b/o"), 400),
        (b"GET /b/o HTTP/1.1\r\n\r\n", 400),
        (b"GET /b/o HTTP/1.1\r\nHost: storage.googleapis.com\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /b/o HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8601\r\n\r\n", 421),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", 400),
        (b"CONNECT storage.googleapis.com HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT user@storage.googleapis.com:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT storage.googleapis.com:443/x HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT ..:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT " + b"a." * 200 + b"com:443 HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n\x16\x03\x01", 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_refused(gateway: GatewayThread, request_bytes: bytes, status: int):
    assert refusal(gateway, request_bytes)[0] == status


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "-x", "a..storage.googleapis.com", "a/b.googleapis.com"])
def test_odd_names_of_hosts_are_refused(gateway: GatewayThread, name: str):
    """They would else become file names, or go to a resolver."""
    assert refusal(gateway, f"CONNECT {name}:443 HTTP/1.1\r\n\r\n".encode())[0] == 400


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n", b"-1\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"1\r\nab", b"f" * 5000, b"0\r\nbad trailer\r\n\r\n"],
)
def test_wrong_chunks_are_told_as_such(gateway: GatewayThread, body: bytes):
    head = b"PUT http://storage.googleapis.com/b/o HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refusal(gateway, head + body)[0] == 400


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_truncated_body_is_no_request(gateway: GatewayThread, framing: bytes):
    with gateway.connect() as connection:
        connection.sendall(
            b"PUT http://storage.googleapis.com/b/o HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n5\r\nab"
        )
        connection.shutdown(socket.SHUT_WR)
        status, _, body = read_response(connection)
    assert status == 400
    assert b"ended before" in body


def test_a_smuggled_request_stays_in_the_body(gateway: GatewayThread):
    """The classic: two framings, of which a front takes one and its back end the other."""
    smuggled = b"0\r\n\r\nGET http://storage.googleapis.com/secret HTTP/1.1\r\nHost: x\r\n\r\n"
    request = b"POST http://storage.googleapis.com/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        len(smuggled),
        smuggled,
    )
    with gateway.connect() as connection:
        connection.sendall(request)
        _, _, body = read_response(connection)
        assert json.loads(body)["size"] == len(smuggled)
        connection.sendall(get())
        assert json.loads(read_response(connection)[2])["path"] == "/b/o"


def test_slow_headers_are_cut_off(quick_gateway: GatewayThread):
    """Slow-loris: a byte now and then does not help."""
    with quick_gateway.connect(timeout_s=10) as connection:
        began_s = time.monotonic()
        status = None
        connection.settimeout(0.05)
        connection.sendall(b"GET http://storage.googleapis.com/ HTTP/1.1\r\n")
        answer = b""
        while not answer and time.monotonic() - began_s < 5:
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"A: b\r\n")
        status = int(answer.split()[1])
    assert status == 408
    assert time.monotonic() - began_s < 3


def test_a_silent_connection_is_closed(quick_gateway: GatewayThread):
    with quick_gateway.connect(timeout_s=10) as connection:
        assert connection.recv(1) == b""


def test_a_slow_body_is_cut_off(quick_gateway: GatewayThread):
    status, message = refusal(
        quick_gateway, b"PUT http://storage.googleapis.com/b HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
    )
    assert status == 408
    assert "did not come" in message


def test_no_tls_after_connect_is_dropped(serve: Serve):
    gateway = serve(echo_app, limits=Limits(handshake_s=0.3))
    with gateway.connect(timeout_s=10) as connection:
        connection.sendall(b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n")
        read_until(connection, b"\r\n\r\n")
        assert read_all(connection) == b""  # nothing comes, so nothing is answered
    with gateway.connect(timeout_s=10) as connection:
        connection.sendall(b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n")
        read_until(connection, b"\r\n\r\n")
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert not read_all(connection).startswith(b"HTTP")


def test_too_many_connections_are_refused_and_the_rest_served(serve: Serve):
    gateway = serve(echo_app, limits=Limits(connections=3))
    held = [gateway.connect() for _ in range(3)]
    try:
        for connection in held:  # each must be accepted before the next one counts
            connection.sendall(get())
            assert read_response(connection)[0] == 200
        assert refusal(gateway, get())[0] == 503
        held[0].sendall(get())
        assert read_response(held[0])[0] == 200
    finally:
        for connection in held:
            connection.close()


def test_a_hundred_bad_clients_leave_no_trace(serve: Serve):
    gateway = serve(echo_app, limits=Limits(linger_s=0.2, handshake_s=0.5))
    garbage = [b"", b"\r\n", b"GET", b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\n", get(), b"\0" * 1000]

    def misbehave(number: int) -> None:
        with gateway.connect() as connection:
            connection.sendall(garbage[number % len(garbage)])
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST, no FIN

    threads = [threading.Thread(target=misbehave, args=[number]) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline_s = time.monotonic() + 10
    while gateway.server._connections and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not gateway.server._connections
    with gateway.connect() as connection:
        connection.sendall(get())
        assert read_response(connection)[0] == 200
