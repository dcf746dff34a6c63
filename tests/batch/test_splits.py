"""Inputs cut into splits and read back: each line once, in order, wherever the cuts fall."""

import gzip
import itertools
import struct
from typing import Any

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.batch import split as split_module
from enginehouse.batch.objects import Object
from enginehouse.batch.read import BLOCK_BYTES, DamagedInput, blocks, first_line
from enginehouse.batch.split import LARGEST_SPLIT_BYTES, SMALLEST_SPLIT_BYTES, Piece, make_splits

from .memory import MemoryObjects

LINES = st.lists(st.text("ab,\r", max_size=9).map(str.encode), max_size=12)


@given(lines=LINES, last_end=st.booleans(), cuts=st.lists(st.integers(0, 120), max_size=5), chunk=st.integers(1, 40))
def test_a_file_in_pieces(lines: list[bytes], last_end: bool, cuts: list[int], chunk: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    if not last_end:
        data = data[:-1]
    objects = MemoryObjects({"f": data}, chunk)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    read = b""
    for start, end in itertools.pairwise(places):
        for block in blocks(objects, Piece("b", "f", "1", start, end, len(data)), "TEXT"):
            assert block.data.endswith(b"\n")
            assert data[block.offset :].startswith(block.data.removesuffix(b"\n"))
            read += block.data
    assert read == (data if data.endswith(b"\n") or not data else data + b"\n")


@given(sizes=st.lists(st.integers(0, 300), max_size=20), workers=st.integers(1, 5))
def test_splits_cover_everything_once_and_in_order(sizes: list[int], workers: int) -> None:
    objects = [Object("b", f"f{index}", "1", size, {}) for index, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_module, "SMALLEST_SPLIT_BYTES", 10)
        patch.setattr(split_module, "LARGEST_SPLIT_BYTES", 100)
        splits = make_splits(objects, "TEXT", workers=workers)
    assert splits
    covered: dict[str, int] = {}
    order = []
    for piece in (piece for split in splits for piece in split):
        assert piece.start == covered.get(piece.name, 0)
        assert piece.end > piece.start
        covered[piece.name] = piece.end
        order.append(int(piece.name[1:]))
    assert order == sorted(order)
    assert covered == {each.name: each.size_bytes for each in objects if each.size_bytes}
    sums = [sum(piece.end - piece.start for piece in split) for split in splits]
    assert max(sums) <= 125
    left = sum(sums)
    for size in sums if workers > 1 else []:  # half of a worker's share of what is left, or a quarter more
        assert size <= max(10, left // (2 * workers)) * 1.25
        left -= size


def test_sizes_of_splits() -> None:
    def count(size_bytes: int, workers: int = 2, name: str = "f.csv", data_format: str = "CSV") -> int:
        return len(make_splits([Object("b", name, "1", size_bytes, {})], data_format, workers=workers))

    assert count(0) == count(500) == count(SMALLEST_SPLIT_BYTES) == 1
    assert count(16 * SMALLEST_SPLIT_BYTES) == 9, "4, 3, 2.25, 1.7, 1.3 and four times about 1"
    assert 100 < count(100 * LARGEST_SPLIT_BYTES) < 120
    assert count(100 * LARGEST_SPLIT_BYTES, name="f.csv.gz") == 1
    assert count(100 * LARGEST_SPLIT_BYTES, data_format="TF_RECORD") == 1


def test_blocks_stay_small_and_lines_whole() -> None:
    line = b"x" * 999 + b"\n"
    objects = MemoryObjects({"f": line * 5000}, BLOCK_BYTES)
    found = list(blocks(objects, Piece("b", "f", "1", 0, 5_000_000, 5_000_000), "TEXT"))
    assert max(len(block.data) for block in found) <= BLOCK_BYTES + len(line)
    assert b"".join(block.data for block in found) == line * 5000


def test_compressed_text() -> None:
    data = b"".join(b"%d\n" % number for number in range(100_000))
    packed = gzip.compress(data)
    objects = MemoryObjects({"f.gz": packed}, 1000)
    piece = Piece("b", "f.gz", "1", 0, len(packed), len(packed))
    assert b"".join(block.data for block in blocks(objects, piece, "TEXT")) == data
    assert first_line(objects, piece) == b"0"
    objects.contents["f.gz"] = packed[:-100]
    with pytest.raises(DamagedInput, match=r"f\.gz is no whole gzip file"):
        list(blocks(objects, piece, "TEXT"))


def masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def tf_record(records: list[bytes]) -> bytes:
    """A TFRecord file, written by the format's description."""
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, struct.pack("<I", masked_crc(length)), record, struct.pack("<I", masked_crc(record))]
    return b"".join(parts)


@pytest.mark.parametrize("data_format", ["TF_RECORD", "TF_RECORD_GZIP"])
def test_tf_records(data_format: str) -> None:
    records = [b"%d" % number * (number % 50) for number in range(2000)] + [b"z" * 3_000_000, b""]
    data = tf_record(records)
    if data_format == "TF_RECORD_GZIP":
        data = gzip.compress(data)
    objects = MemoryObjects({"f": data}, 100_000)
    piece = Piece("b", "f", "1", 0, len(data), len(data))
    assert [record for block in blocks(objects, piece, data_format) for record in block.records] == records


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:20] + b"X" + d[21:], lambda d: b"X" + d[1:]])
def test_damaged_tf_records(damage: Any) -> None:
    data = damage(tf_record([b"a" * 30, b"b" * 30]))
    piece = Piece("b", "f", "1", 0, len(data), len(data))
    with pytest.raises(DamagedInput, match=r"gs://b/f holds no whole TFRecord at byte"):
        list(blocks(MemoryObjects({"f": data}), piece, "TF_RECORD"))
