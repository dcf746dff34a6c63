"""What a model server tells of requests that it answered on lent connections, for logs and tables of requests.

A ring of records in the memory that it shares with the engine (`journal`): the server puts, the engine takes once a
second, and neither waits for the other. A record that finds no room is dropped and counted. Both sides import this
module.

A record is prepared before the answer is sent, and put by one write to a word after that. So a server that is killed
leaves what it told, and `Journal.settle` puts the record of an answer that was just out.

Each record comes after its size (uint32), at an address that 8 divides; the size 0 stands for the rest of the ring.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from enginehouse.modelserver.journal import (
    N_PREPARED,
    N_PUT,
    N_TAKEN,
    N_UNTOLD,
    PREPARED_SLOT,
    RING_AT,
    RING_BYTES,
    Journal,
)

_SIZE = struct.Struct("=I")
_HEADER = struct.Struct("=IHIIQQ")


class Told(NamedTuple):
    """One request.

    Args:
        telling: number of what the engine knows of it (`serving.lending`).
        status: of the answer.
        request_bytes, response_bytes: sizes of the bodies.
        time_ns: when it was answered, since the epoch.
        took_ns: how long that took, from when it was seen.
        request, answer: the bodies, where they are to be kept.
    """

    telling: int
    status: int
    request_bytes: int
    response_bytes: int
    time_ns: int
    took_ns: int
    request: bytes = b""
    answer: bytes = b""

    def pack(self) -> bytes:
        return _HEADER.pack(*self[:6]) + self.request + self.answer

    @classmethod
    def unpack(cls, record: bytes) -> Told:
        told = cls(*_HEADER.unpack_from(record))
        middle = _HEADER.size + told.request_bytes
        return told._replace(request=record[_HEADER.size : middle], answer=record[middle:])


class Ring:
    """One side's view of the ring: one thread of one process puts, one thread of another takes."""

    def __init__(self, journal: Journal) -> None:
        self._memory = journal.memory
        self._words = journal.words

    def prepare(self, record: bytes, slot: int) -> None:
        """Write what is to be told once the answer in a slot is out, if there is room. Replaces what was prepared."""
        self._words[PREPARED_SLOT] = 0
        n_put = self._words[N_PUT]
        at = n_put % RING_BYTES
        size_bytes = -(-(_SIZE.size + len(record)) // 8) * 8
        skipped_bytes = RING_BYTES - at if at + size_bytes > RING_BYTES else 0
        if n_put + skipped_bytes + size_bytes - self._words[N_TAKEN] > RING_BYTES:
            return
        if skipped_bytes:
            _SIZE.pack_into(self._memory, RING_AT + at, 0)
            at = 0
        start = RING_AT + at + _SIZE.size
        self._memory[start : start + len(record)] = record
        _SIZE.pack_into(self._memory, start - _SIZE.size, len(record))
        self._words[N_PREPARED] = n_put + skipped_bytes + size_bytes
        self._words[PREPARED_SLOT] = slot + 1

    def put(self) -> None:
        """Tell what was prepared, or that it found no room."""
        if self._words[PREPARED_SLOT]:
            self._words[N_PUT] = self._words[N_PREPARED]
            self._words[PREPARED_SLOT] = 0
        else:
            self._words[N_UNTOLD] += 1

    def withdraw(self) -> None:
        """Tell nothing of what was prepared."""
        self._words[PREPARED_SLOT] = 0

    def take(self) -> Iterator[bytes]:
        """The records that are there; their memory is given back."""
        n_put, first = self._words[N_PUT], self._words[N_TAKEN]
        n_taken = first
        while n_taken < n_put:
            at = n_taken % RING_BYTES
            start = RING_AT + at + _SIZE.size
            (size_bytes,) = _SIZE.unpack_from(self._memory, start - _SIZE.size)
            if size_bytes:
                record = self._memory[start : start + size_bytes]
                n_taken += -(-(_SIZE.size + size_bytes) // 8) * 8
                yield record
            else:
                n_taken += RING_BYTES - at
        if n_taken > first:
            self._release(first, n_taken)
            self._words[N_TAKEN] = n_taken

    def _release(self, first: int, end: int) -> None:
        """Give the pages that were read to their end back to the system."""
        start, stop = (each // mmap.PAGESIZE * mmap.PAGESIZE for each in (first, end))
        while start < stop:
            at = start % RING_BYTES
            length = min(stop - start, RING_BYTES - at)
            self._memory.madvise(mmap.MADV_REMOVE, RING_AT + at, length)
            start += length
