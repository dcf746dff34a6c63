"""From the input objects to splits: what one worker predicts in one go, and one shard of the output holds.

A split is a row of pieces in the order of the input. Text is cut anywhere: a line belongs to the piece in which it
begins. TFRecord and compressed files stay whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from enginehouse.batch.objects import Object

LARGEST_SPLIT_BYTES = 64 << 20
"""What a kill can cost is the work on one split."""
SMALLEST_SPLIT_BYTES = 1 << 20
MAX_SPLITS = 90_000
"""Shards are numbered with five digits."""
_PARTS_PER_WORKER = 2


@dataclass(frozen=True)
class Piece:
    """Bytes `start` up to, not with, `end` of an object of `size_bytes`."""

    bucket: str
    name: str
    generation: str
    start: int
    end: int
    size_bytes: int

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/{self.name}"

    def to_json(self) -> dict[str, Any]:
        """A value for `json.dumps`; `Piece(**value)` is the way back."""
        return asdict(self)


Split = list[Piece]


def make_splits(objects: Sequence[Object], data_format: str, *, workers: int) -> list[Split]:
    """Cut the inputs into splits, none larger than a kill may cost, and smaller and smaller towards the end.

    Each worker takes the next split when it is through with its last one. A split is half of a worker's share of what
    is left, so that all end at about the same time, however late they began and however fast they are (guided
    self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36(12), 1987). One alone waits for
    nobody.

    Args:
        objects: in the order of the output.
        data_format: as in `PredictionInput.dataFormat`.
    """
    left_bytes = sum(each.size_bytes for each in objects)
    smallest = max(SMALLEST_SPLIT_BYTES, left_bytes // MAX_SPLITS)
    largest = max(LARGEST_SPLIT_BYTES, smallest)
    parts = workers * _PARTS_PER_WORKER if workers > 1 else 1

    def size() -> int:
        return min(largest, max(smallest, left_bytes // parts))

    splits: list[Split] = [[]]
    room = target_bytes = size()
    for each in objects:
        start = 0
        while start < each.size_bytes:
            end = each.size_bytes
            if is_divisible(each.name, data_format) and end - start > room + target_bytes // 4:
                end = start + room
            splits[-1].append(Piece(each.bucket, each.name, each.generation, start, end, each.size_bytes))
            room -= end - start
            left_bytes -= end - start
            start = end
            if room <= target_bytes // 4:
                splits.append([])
                room = target_bytes = size()
    if not splits[-1] and len(splits) > 1:
        splits.pop()
    return splits


def is_divisible(name: str, data_format: str) -> bool:
    """Whether a file can be read from its middle on."""
    return not data_format.startswith("TF_RECORD") and not name.endswith(".gz")
