"""The chunked coding, without sockets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.errors import EngineError
from enginehouse.gateway.body import ChunkedDecoder
from enginehouse.gateway.errors import BadRequest, HeadTooLarge
from enginehouse.gateway.limits import Limits

LIMITS = Limits(head_bytes=1000)


def decode(data: bytes, piece_bytes: int = 1 << 30) -> tuple[bytes, bytes]:
    decoder = ChunkedDecoder(LIMITS)
    content = b"".join(decoder.feed(data[at : at + piece_bytes]) for at in range(0, len(data), piece_bytes))
    assert decoder.done
    return content, decoder.rest


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1000])
def test_decodes(piece_bytes: int):
    coded = b"4\r\nWiki\r\n000005;name=value;x\r\npedia\r\nA \r\n in chunks\r\n0\r\nX-Trailer: 1\r\n\r\nnext"
    assert decode(coded, piece_bytes) == (b"Wikipedia in chunks", b"next")


def test_an_empty_body():
    assert decode(b"0\r\n\r\n") == (b"", b"")


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n",
        b"g\r\n",
        b"0x4\r\nWiki\r\n",
        b"-4\r\nWiki\r\n",
        b"+4\r\nWiki\r\n",
        b"4_0\r\n",
        b" 4\r\nWiki\r\n",
        b"4\nWiki\r\n",
        b"4\r\nWiki\n0\r\n\r\n",
        b"4\r\nWikipedia\r\n",
        b"4\r\nWik\r\n0\r\n\r\n",
        b"4;a\0b\r\nWiki\r\n",
        b"4;" + b"a" * 2000,
        b"1234567890abcdef0\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\nA: b\r\n folded\r\n\r\n",
    ],
)
def test_refuses_what_is_not_chunked(coded: bytes):
    with pytest.raises(BadRequest):
        ChunkedDecoder(LIMITS).feed(coded)


def test_trailers_are_limited():
    decoder = ChunkedDecoder(LIMITS)
    decoder.feed(b"0\r\n")
    with pytest.raises(HeadTooLarge):
        for _ in range(200):
            decoder.feed(b"A: bcdef\r\n")


def test_a_megabyte_in_single_bytes_takes_linear_time():
    coded = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    began_s = time.perf_counter()
    assert decode(coded, 65536)[0] == b"x" * 100_000
    assert time.perf_counter() - began_s < 5


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.binary(max_size=10),
    st.integers(min_value=1, max_value=50),
)
def test_any_chunks_give_the_content(chunks: list[bytes], behind: bytes, piece_bytes: int):
    coded = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + behind
    assert decode(coded, piece_bytes) == (b"".join(chunks), behind)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_are_decoded_or_refused(pieces: list[bytes]):
    decoder = ChunkedDecoder(LIMITS)
    try:
        for piece in pieces:
            decoder.feed(piece)
    except EngineError as error:
        assert error.http_status in (400, 431)
