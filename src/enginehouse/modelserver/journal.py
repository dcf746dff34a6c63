"""The page of memory that the engine and a model server share. Both sides import this module.

A model server answers on connections that the engine has lent to it. When it dies, the engine must know how far each
of them is, to the byte, or clients would lose an answer or get one twice. Three facts make that exact:

* The server only peeks at a request (MSG_PEEK); it takes the bytes out of the kernel after the answer is sent.
* Before it sends, it writes into the connection's slot what will be true afterwards.
* The kernel counts what was written to and read from a connection (`counts`), whoever did it.

So a request is either still there, to be read by the engine, or its answer is out and `settle` drops what is left.

    word 0        CLOCK_MONOTONIC in ns since when a batch is gathered and run, 0 when none is
    word 1        CLOCK_MONOTONIC in ns of the last answer on a lent connection
    word 2        number of such answers
    words 3 … 5   number of batches that were closed because they were full, idle, or at their deadline (`window`)
    word 6        number of requests that were to be told of, and found no room (`telling`)
    words 8 … 63  per phase of a prediction (queue, decode, model, encode): requests by duration, then ns in all
    words 64 …    the same of explanations
    word 120, 121 bytes that were put into the ring of `telling`, and taken from it
    word 122, 123 word 120 as it will be when the answer in a slot is out, and the number of that slot + 1
    word 128 + 4n slot n: bytes written before the answer, and after it; bytes read after it; ns when it was peeked at

All are unsigned 64-bit words of this machine's order; bytes are counted from the moment of lending. The ring follows.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import mmap
import os
import socket
import struct
import termios
from collections.abc import Mapping

N_SLOTS = 1024
BUSY_SINCE, USED_AT, N_ANSWERS, N_UNTOLD = 0, 1, 2, 6
CLOSED = {"full": 3, "idle": 4, "deadline": 5}
PREDICTION = {"queue": 8, "decode": 22, "model": 36, "encode": 50}
EXPLANATION = {"queue": 64, "decode": 78, "model": 92, "encode": 106}
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0)
"""Upper bounds of the durations that are counted apart; longer ones are counted after them, then comes the sum."""
N_COUNTERS = 120
N_PUT, N_TAKEN, N_PREPARED, PREPARED_SLOT = 120, 121, 122, 123
_SLOTS = 128
RING_AT = -(-8 * (_SLOTS + 4 * N_SLOTS) // mmap.PAGESIZE) * mmap.PAGESIZE
RING_BYTES = 64 * 1024 * 1024
"""At most; memory is used for what waits there."""
_SLOT = struct.Struct("=QQQ")
_TCP_INFO_BYTES = 136
_COUNTS = struct.Struct("=QQ")
_COUNTS_AT = 120  # tcpi_bytes_acked, tcpi_bytes_received; linux/tcp.h


class Journal:
    """A view of the shared memory; the file descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self.memory = mmap.mmap(fd, RING_AT + RING_BYTES)
        self.words = memoryview(self.memory)[:RING_AT].cast("Q")

    @staticmethod
    def make() -> int:
        """A file descriptor of a new one, all zero."""
        fd = os.memfd_create("journal")
        os.ftruncate(fd, RING_AT + RING_BYTES)
        return fd

    def observe(self, phase: str, seconds: float, n_requests: int, *, phases: Mapping[str, int] = PREDICTION) -> None:
        """So many requests have spent so long in a phase, together."""
        first = phases[phase]
        self.words[first + bisect.bisect_left(BOUNDS_S, seconds)] += n_requests
        self.words[first + len(BOUNDS_S) + 1] += int(seconds * 1e9) * n_requests

    def closed(self, reason: str) -> None:
        """A batch was closed for a reason."""
        self.words[CLOSED[reason]] += 1

    def clear(self, slot: int) -> None:
        """Begin with a new connection."""
        first = _SLOTS + 4 * slot
        self.words[first : first + 4] = memoryview(bytes(32)).cast("Q")

    def peeked(self, slot: int, now_ns: int) -> None:
        """A request was seen."""
        self.words[_SLOTS + 4 * slot + 3] = now_ns

    def peeked_at(self, slot: int) -> int:
        return self.words[_SLOTS + 4 * slot + 3]

    def answering(self, slot: int, written_before: int, written_after: int, read_after: int) -> None:
        """An answer will be sent, and its request dropped."""
        _SLOT.pack_into(self.memory, 8 * (_SLOTS + 4 * slot), written_before, written_after, read_after)

    def settle(self, slot: int, connection: socket.socket, base: tuple[int, int]) -> bool:
        """After the death of the server: leave a connection at the start of a request.

        Args:
            base: `counts` when the connection was lent.

        Returns:
            False when an answer is out in part, so that the connection is of no use any more.
        """
        before, after, read_after = _SLOT.unpack_from(self.memory, 8 * (_SLOTS + 4 * slot))
        written, read = (now - then for now, then in zip(counts(connection), base, strict=True))
        if written == after:
            if self.words[PREPARED_SLOT] == slot + 1:
                self.words[N_PUT] = self.words[N_PREPARED]
            if read < read_after:
                with contextlib.suppress(OSError):  # the client is gone
                    connection.recv(read_after - read, socket.MSG_TRUNC | socket.MSG_DONTWAIT)
            return True
        return bool(written == before)


def counts(connection: socket.socket) -> tuple[int, int]:
    """The bytes that were written to and read from a TCP connection so far."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    acked, received = _COUNTS.unpack_from(info, _COUNTS_AT)
    return acked + _queued(connection, termios.TIOCOUTQ), received - _queued(connection, termios.FIONREAD)


def _queued(connection: socket.socket, request: int) -> int:
    size_bytes: int = struct.unpack("i", fcntl.ioctl(connection, request, bytes(4)))[0]
    return size_bytes
