"""The log of a job: its streams (service lines, one per replica) merged into one, read with a cursor.

In come `LogStream`s, out come records in the order of (timestamp, insert id) and a cursor for the next read. Called
by the APIs that show logs.
"""

from __future__ import annotations

import base64
import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from enginehouse.core.errors import InvalidArgument
from enginehouse.telemetry.segments import LogRecord


class LogStream(Protocol):
    """A source of records that only grows. Reading changes nothing, so any number of readers may share it.

    `read` returns the records from `offset` on in their order, each exactly once when every call goes on from the
    offset that the last one returned; an offset of 0 is the start. What an offset counts is the stream's affair.
    """

    @property
    def name(self) -> str:
        """Differs between the streams of a job and never changes."""
        ...

    def read(self, offset: int, limit: int) -> tuple[list[LogRecord], int]:
        """Up to `limit` records from `offset` on, and the offset to go on from."""
        ...

    def seek(self, timestamp_ns: int) -> int:
        """An offset from which on all records of `timestamp_ns` and later are read, maybe some earlier ones too."""
        ...


class JobLog:
    """The merged streams of one job.

    Every record is given exactly once and each stream's order is kept. Across streams the order is that of
    (timestamp, insert id) among what had been written when `read` was called: what another stream writes later with
    an earlier time comes later.

    Args:
        streams: may grow from one instance to the next; a cursor knows streams by name, so that one that appears
        later
            is read from its start.
    """

    def __init__(self, streams: Sequence[LogStream]) -> None:
        self._streams = streams

    def cursor_at(self, timestamp_ns: int) -> str:
        """A cursor that gives all records of `timestamp_ns` and later, and maybe some earlier ones first."""
        return _make_cursor({stream.name: stream.seek(timestamp_ns) for stream in self._streams})

    def read(self, cursor: str = "", limit: int = 1000) -> tuple[list[LogRecord], str]:
        """The next records.

        Args:
            cursor: what the last call returned; "" starts from the beginning.
            limit: most records to return, at least 1.

        Raises:
            InvalidArgument: the cursor is none of ours.
        """
        offsets = _parse_cursor(cursor)
        batches: dict[str, tuple[list[LogRecord], int]] = {}
        for stream in self._streams:
            batches[stream.name] = stream.read(offsets.get(stream.name, 0), limit)
        heads = ([(record, name) for record in records] for name, (records, _) in batches.items())
        merged = list(islice(heapq.merge(*heads, key=lambda item: (item[0].timestamp_ns, item[0].insert_id)), limit))
        taken = Counter(name for _, name in merged)
        for stream in self._streams:
            records, next_offset = batches[stream.name]
            if taken[stream.name] == len(records):
                offsets[stream.name] = next_offset
            elif taken[stream.name]:  # only the stream knows which offset lies after its first records
                offsets[stream.name] = stream.read(offsets.get(stream.name, 0), taken[stream.name])[1]
        return [record for record, _ in merged], _make_cursor(offsets)


def _make_cursor(offsets: Mapping[str, int]) -> str:
    text = json.dumps({name: offset for name, offset in offsets.items() if offset}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> dict[str, int]:
    if not cursor:
        return {}
    try:
        value = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not all(isinstance(offset, int) and offset >= 0 for offset in value.values()):
            raise ValueError
    except (ValueError, AttributeError):
        raise InvalidArgument("This is not a cursor that a log read returned.", field="cursor") from None
    return dict(value)
