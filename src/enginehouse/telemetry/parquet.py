"""Writes small Parquet files: flat tables of texts and times, in one row group.

In: columns and rows. Out: the bytes of a file that DuckDB, pyarrow, pandas, Spark or BigQuery read. The engine would
need nothing else of a library of some 40 MB. Format: https://parquet.apache.org/docs/file-format/ (PLAIN values,
gzip'd pages, metadata in Thrift's compact protocol).
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Literal, NamedTuple

_MAGIC = b"PAR1"
_INT64, _BYTE_ARRAY = 2, 6
_REQUIRED, _OPTIONAL = 0, 1
_GZIP = 2
_PLAIN, _RLE = 0, 3
_UTF8, _TIMESTAMP_MICROS = 0, 10


class Column(NamedTuple):
    """A column: `text` holds str, `time` microseconds since the epoch; only what is `optional` may be None."""

    name: str
    kind: Literal["text", "time"]
    optional: bool = False


def write(columns: Sequence[Column], rows: Sequence[Sequence[str | int | None]]) -> bytes:
    """The file with these rows, each with a value per column."""
    file = bytearray(_MAGIC)
    chunks = []
    for position, column in enumerate(columns):
        offset = len(file)
        values = [row[position] for row in rows]
        page = _page(column, values)
        packed = gzip.compress(page, compresslevel=5, mtime=0)
        header = _struct(
            (1, _i32(0)),
            (2, _i32(len(page))),
            (3, _i32(len(packed))),
            (5, _nested((1, _i32(len(rows))), (2, _i32(_PLAIN)), (3, _i32(_RLE)), (4, _i32(_RLE)))),
        )
        file += header + packed
        chunks.append(_chunk(column, len(rows), offset, len(header) + len(page), len(header) + len(packed)))
    group = _struct((1, _list(12, chunks)), (2, _i64(len(file) - len(_MAGIC))), (3, _i64(len(rows))))
    root = _struct((4, _text("schema")), (5, _i32(len(columns))))
    schema = [root, *(_schema_element(column) for column in columns)]
    footer = _struct(
        (1, _i32(1)),
        (2, _list(12, schema)),
        (3, _i64(len(rows))),
        (4, _list(12, [group])),
        (6, _text("enginehouse")),
    )
    return bytes(file + footer + struct.pack("<I", len(footer)) + _MAGIC)


def _page(column: Column, values: Sequence[str | int | None]) -> bytes:
    page = bytearray()
    if column.optional:
        levels = bytearray()
        for given, run in groupby(value is not None for value in values):
            levels += _varint(len(list(run)) << 1) + bytes([given])
        page += struct.pack("<I", len(levels)) + levels
    for value in values:
        if isinstance(value, str):
            data = value.encode("utf-8", "replace")
            page += struct.pack("<I", len(data)) + data
        elif value is not None:
            page += struct.pack("<q", value)
        elif not column.optional:
            raise ValueError(f"the column {column.name} needs a value in each row")
    return bytes(page)


def _schema_element(column: Column) -> bytes:
    is_text = column.kind == "text"
    logical = (1, _nested()) if is_text else (8, _nested((1, (1, b"")), (2, _nested((2, _nested())))))
    return _struct(
        (1, _i32(_BYTE_ARRAY if is_text else _INT64)),
        (3, _i32(_OPTIONAL if column.optional else _REQUIRED)),
        (4, _text(column.name)),
        (6, _i32(_UTF8 if is_text else _TIMESTAMP_MICROS)),
        (10, _nested(logical)),
    )


def _chunk(column: Column, n_values: int, offset: int, size_bytes: int, packed_bytes: int) -> bytes:
    told = _nested(
        (1, _i32(_BYTE_ARRAY if column.kind == "text" else _INT64)),
        (2, _list(5, [_zigzag(_PLAIN), _zigzag(_RLE)])),
        (3, _list(8, [_text(column.name)[1]])),
        (4, _i32(_GZIP)),
        (5, _i64(n_values)),
        (6, _i64(size_bytes)),
        (7, _i64(packed_bytes)),
        (9, _i64(offset)),
    )
    return _struct((2, _i64(offset)), (3, told))


# --- Thrift's compact protocol: a value is (type, bytes) ---

_Value = tuple[int, bytes]


def _struct(*fields: tuple[int, _Value]) -> bytes:
    data, last = bytearray(), 0
    for number, (kind, value) in fields:
        data += bytes([(number - last) << 4 | kind]) + value
        last = number
    return bytes(data) + b"\0"


def _nested(*fields: tuple[int, _Value]) -> _Value:
    return 12, _struct(*fields)


def _i32(value: int) -> _Value:
    return 5, _zigzag(value)


def _i64(value: int) -> _Value:
    return 6, _zigzag(value)


def _text(value: str) -> _Value:
    data = value.encode()
    return 8, _varint(len(data)) + data


def _list(kind: int, items: Sequence[bytes]) -> _Value:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return 9, head + b"".join(items)


def _zigzag(value: int) -> bytes:
    return _varint((value << 1) ^ (value >> 63))


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
