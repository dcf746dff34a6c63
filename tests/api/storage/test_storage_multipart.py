"""The multipart body gives the same content however the network cuts it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.api.storage.multipart import RelatedBody
from enginehouse.api.storage.uploads import in_blocks
from enginehouse.core.errors import InvalidArgument

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"--b", b"\r\n--b", b"\n--b", b"data"]), max_size=8
)


async def cut(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]
    yield b""


async def parse(body: bytes, header: str, size: int) -> tuple[dict[str, object], str | None, bytes]:
    related = RelatedBody(header, cut(body, size))
    head = await related.head()
    content = b"".join([part async for part in related.content()])
    return head.resource, head.content_type, content


@given(pieces=PIECES, size=st.integers(1, 40), eol=st.sampled_from([b"\r\n", b"\n"]), preamble=st.booleans())
def test_any_content_however_it_is_cut(pieces: list[bytes], size: int, eol: bytes, preamble: bool) -> None:
    content = b"".join(pieces)
    boundary = b"b:1" if b"--b:1" not in content else b"b:2"
    lines = [
        *([b""] if preamble else []),
        b"--" + boundary,
        b"Content-Type: application/json",
        b"",
        b'{"name": "x"}',
        b"--" + boundary,
        b"content-type: text/plain ",
        b"X-Other: 1",
        b"",
        content,
        b"--" + boundary + b"--",
        b"epilogue",
    ]
    parsed = asyncio.run(parse(eol.join(lines), f"multipart/related; boundary='{boundary.decode()}'", size))
    assert parsed == ({"name": "x"}, "text/plain", content)


def test_quotes_that_belong_to_the_boundary_are_kept() -> None:
    body = b"--'q'\r\n\r\n{}\r\n--'q'\r\n\r\ndata\r\n--'q'--"
    assert asyncio.run(parse(body, "multipart/related; boundary=\"'q'\"", 100)) == ({}, None, b"data")


def test_a_head_without_end_is_refused_before_it_fills_the_memory() -> None:
    body = b"--b\r\n\r\n" + b" " * 3_000_000
    with pytest.raises(InvalidArgument, match="no second part"):
        asyncio.run(parse(body, "multipart/related; boundary=b", 65536))


@given(sizes=st.lists(st.integers(0, 30), max_size=20), block=st.integers(1, 40))
def test_blocks_are_worth_a_thread(sizes: list[int], block: int) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def stream() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def gather() -> list[bytes]:
        return [found async for found in in_blocks(stream(), block)]

    blocks = asyncio.run(gather())
    assert b"".join(blocks) == b"".join(parts)
    assert all(block <= len(found) < block + 30 for found in blocks[:-1]) and b"" not in blocks
