"""The head of a request: what is read how, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.errors import EngineError
from enginehouse.gateway.errors import BadRequest, HeadTooLarge, VersionNotSupported
from enginehouse.gateway.head import find_head_end, parse_head
from enginehouse.gateway.limits import Limits

LIMITS = Limits(headers=5)


def parse(text: str, **kwargs: object):
    return parse_head(text.encode("latin-1"), LIMITS)


def test_reads_the_parts_of_a_head():
    head = parse("POST /a%2Fb?c=d HTTP/1.1\r\nHost: x\r\nX-Thing:  two words \t\r\nContent-Length: 3\r\n\r\n")
    assert (head.method, head.target, head.version, head.content_length) == ("POST", "/a%2Fb?c=d", "1.1", 3)
    assert head.headers == [(b"host", b"x"), (b"x-thing", b"two words"), (b"content-length", b"3")]
    assert head.keep_alive


def test_lines_may_end_in_a_bare_lf():
    mixed = parse("GET / HTTP/1.1\nHost: x\r\nA: b\n\r\n")
    assert mixed.headers == [(b"host", b"x"), (b"a", b"b")]
    assert parse("GET / HTTP/1.1\n\n").headers == []


@pytest.mark.parametrize(
    ("headers", "content_length"),
    [
        ("", 0),
        ("Content-Length: 0", 0),
        ("Content-Length: 7", 7),
        ("Content-Length: 7, 7", 7),
        ("Content-Length: 7\r\nContent-Length: 7", 7),
        ("Transfer-Encoding: chunked", None),
        ("Transfer-Encoding: Chunked", None),
        # What TensorFlow sends: uploads first, then empty POSTs.
        ("Transfer-Encoding: chunked\r\nContent-Length: 7", None),
        ("Content-Length: 0\r\nTransfer-Encoding: identity", 0),
        ("Transfer-Encoding: identity", 0),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", None),
    ],
)
def test_framing(headers: str, content_length: int | None):
    head = parse(f"PUT / HTTP/1.1\r\n{headers}\r\n\r\n" if headers else "PUT / HTTP/1.1\r\n\r\n")
    assert head.content_length == content_length


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 7\r\nContent-Length: 8",
        "Content-Length: 7, 8",
        "Content-Length: +7",
        "Content-Length: -7",
        "Content-Length: 0x7",
        "Content-Length: 7_0",
        "Content-Length: ",
        "Content-Length: 12345678901234567890",
        "Content-Length: \u00b2",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "A: b\r\n folded",
        "A: b\r\n\tfolded",
        "A\0B: c",
        "A: b\0c",
        "A: b\rc",
        "A: b\x7fc",
        "A B: c",
        ": no name",
        "no colon",
        "\u00e9: x",
    ],
)
def test_refuses_what_could_be_read_in_two_ways(headers: str):
    with pytest.raises(BadRequest):
        parse(f"PUT / HTTP/1.1\r\n{headers}\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GET /",
        "GET / HTTP/1.1 ",
        "GET  / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\u00e9 HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "G\u00c9T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/11.1",
        "GET / HTTP/1.1\rX",
        "\x16\x03\x01\x02",
        "A" * 33 + " / HTTP/1.1",
    ],
)
def test_refuses_other_request_lines(line: str):
    with pytest.raises(BadRequest):
        parse(f"{line}\r\nHost: x\r\n\r\n")


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2"])
def test_refuses_other_versions(version: str):
    with pytest.raises(VersionNotSupported):
        parse(f"PRI * {version}\r\n\r\n")


def test_http_1_0_is_closed_and_never_chunked():
    assert not parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive
    with pytest.raises(BadRequest):
        parse("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("header", "keep_alive"),
    [
        ("Connection: close", False),
        ("Connection: x, Close", False),
        ("Proxy-Connection: close", False),
        ("A: b", True),
    ],
)
def test_connection(header: str, keep_alive: bool):
    assert parse(f"GET / HTTP/1.1\r\n{header}\r\n\r\n").keep_alive is keep_alive


def test_limits_the_number_of_headers():
    assert len(parse("GET / HTTP/1.1\r\n" + "A: b\r\n" * 5 + "\r\n").headers) == 5
    with pytest.raises(HeadTooLarge):
        parse("GET / HTTP/1.1\r\n" + "A: b\r\n" * 6 + "\r\n")


def test_finds_the_end_whereever_the_bytes_are_cut():
    head = b"GET / HTTP/1.1\r\nA: b\n\r\n"
    for cut in range(len(head)):
        assert find_head_end(head[:cut]) == -1
        assert find_head_end(head + b"body", cut) == len(head)


@given(st.binary(max_size=200))
def test_bytes_are_parsed_or_refused(data: bytes):
    """Never any other exception."""
    try:
        head = parse_head(data + b"\r\n\r\n", LIMITS)
    except EngineError as error:
        assert 400 <= error.http_status <= 505
    else:
        assert head.target.isascii()
