"""Splits to blocks of instances: lines of text, or the records of TFRecord files.

Comes in: the pieces of a split; goes out: blocks of about a megabyte, whose size does not grow with the input's.
"""

from __future__ import annotations

import gzip
import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from enginehouse.batch.objects import Objects
from enginehouse.batch.split import Piece, is_divisible

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 512 << 20
_RECORD_HEAD = struct.Struct("<QI")  # length, masked crc32c of the length
_RECORD_END = struct.Struct("<I")  # masked crc32c of the data
_CRC_DELTA = 0xA282EAD8


class DamagedInput(Exception):
    """An input file that cannot be read on."""


@dataclass(frozen=True)
class Block:
    """Instances in a row.

    Attributes:
        piece: where they are from.
        offset: of the first one in the file, in bytes; of the file's content where it is compressed.
        data: whole lines; b"" for records.
        records: of a TFRecord file.
    """

    piece: Piece
    offset: int
    data: bytes = b""
    records: tuple[bytes, ...] = ()


def blocks(objects: Objects, piece: Piece, data_format: str) -> Iterator[Block]:
    """The instances of a piece.

    Raises:
        DamagedInput: naming the file and the place in it.
    """
    if data_format.startswith("TF_RECORD"):
        return _record_blocks(objects, piece, compressed=data_format == "TF_RECORD_GZIP")
    return _line_blocks(objects, piece)


def first_line(objects: Objects, piece: Piece) -> bytes:
    """The first line of the piece's file, without its end."""
    start = Piece(piece.bucket, piece.name, piece.generation, 0, min(1, piece.size_bytes), piece.size_bytes)
    for block in _line_blocks(objects, start):
        return block.data.split(b"\n", 1)[0].rstrip(b"\r")
    return b""


def _line_blocks(objects: Objects, piece: Piece) -> Iterator[Block]:
    if not is_divisible(piece.name, ""):
        return _whole_lines(piece, _unzipped(objects, piece), 0)
    # From the byte before: if it ends a line, one begins at the start.
    begin = max(0, piece.start - 1)
    stream = _rest_of(objects, piece, begin)
    offset = begin
    if piece.start:
        skipped, rest = _skip_line(stream)
        offset += skipped
        stream = itertools.chain([rest], stream)
    if offset >= piece.end:
        return iter(())
    return _whole_lines(piece, _to_line_end(stream, piece.end - 1 - offset), offset)


def _rest_of(objects: Objects, piece: Piece, begin: int) -> Iterator[bytes]:
    """The file from `begin` on; what lies behind the piece's end is asked for only when somebody reads so far."""
    for start, end in ((begin, piece.end), (piece.end, piece.size_bytes)):
        yield from objects.read(piece.bucket, piece.name, piece.generation, start, end)


def _skip_line(stream: Iterator[bytes]) -> tuple[int, bytes]:
    """Read over the first line end: how many bytes that were, and what was read beyond them."""
    skipped = 0
    for chunk in stream:
        end = chunk.find(b"\n") + 1
        if end:
            return skipped + end, chunk[end:]
        skipped += len(chunk)
    return skipped, b""


def _to_line_end(stream: Iterator[bytes], position: int) -> Iterator[bytes]:
    """The stream up to the first line end at or behind `position`."""
    for chunk in stream:
        if position < len(chunk):
            end = chunk.find(b"\n", max(0, position)) + 1
            if end:
                yield chunk[:end]
                return
        yield chunk
        position -= len(chunk)


def _whole_lines(piece: Piece, stream: Iterator[bytes], offset: int) -> Iterator[Block]:
    """The stream, cut behind line ends."""
    parts: list[bytes | memoryview] = []
    for chunk in stream:
        parts.append(chunk)
        if b"\n" not in chunk:
            if sum(map(len, parts)) > MAX_LINE_BYTES:
                raise DamagedInput(f"{piece.uri}: the line at byte {offset} has no end within 512 MiB.")
            continue
        end = chunk.rfind(b"\n") + 1
        parts[-1] = memoryview(chunk)[:end]
        data = b"".join(parts)
        yield Block(piece, offset, data)
        offset += len(data)
        parts = [chunk[end:]]
    rest = b"".join(parts)
    if rest:
        yield Block(piece, offset, rest + b"\n")


def _unzipped(objects: Objects, piece: Piece) -> Iterator[bytes]:
    with gzip.open(io.BufferedReader(_Raw(_whole(objects, piece))), "rb") as file:
        try:
            while True:
                data = file.read(BLOCK_BYTES)
                if not data:
                    return
                yield data
        except (OSError, EOFError) as error:
            raise DamagedInput(f"{piece.uri} is no whole gzip file: {error}") from error


def _whole(objects: Objects, piece: Piece) -> Iterator[bytes]:
    return objects.read(piece.bucket, piece.name, piece.generation, 0, piece.size_bytes)


class _Raw(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _record_blocks(objects: Objects, piece: Piece, *, compressed: bool) -> Iterator[Block]:
    chunks = _unzipped(objects, piece) if compressed else _whole(objects, piece)
    with io.BufferedReader(_Raw(chunks), BLOCK_BYTES) as file:
        records: list[bytes] = []
        held, start, offset = 0, 0, 0
        while True:
            record = _record(file, piece, offset)
            if record is None:
                break
            records.append(record)
            held += len(record)
            offset += _RECORD_HEAD.size + len(record) + _RECORD_END.size
            if held >= BLOCK_BYTES:
                yield Block(piece, start, records=tuple(records))
                records, held, start = [], 0, offset
        if records:
            yield Block(piece, start, records=tuple(records))


def _record(file: IO[bytes], piece: Piece, offset: int) -> bytes | None:
    head = file.read(_RECORD_HEAD.size)
    if not head:
        return None
    if len(head) == _RECORD_HEAD.size:
        length, length_crc = _RECORD_HEAD.unpack(head)
        if _masked_crc(head[:8]) == length_crc:
            data = file.read(length + _RECORD_END.size)
            if len(data) == length + _RECORD_END.size:
                record = data[:length]
                if _masked_crc(record) == _RECORD_END.unpack_from(data, length)[0]:
                    return record
    raise DamagedInput(f"{piece.uri} holds no whole TFRecord at byte {offset}.")


def _masked_crc(data: bytes) -> int:
    crc: int = _crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _CRC_DELTA) & 0xFFFFFFFF


def _crc32c_slowly(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


try:
    from google_crc32c import value as _crc32c
except ImportError:
    _CRC_TABLE = _crc_table()
    _crc32c = _crc32c_slowly
