"""Lends client connections to a model server, so that its requests need not pass through the engine.

The engine keeps its own descriptor of a lent connection and stops reading from it; the model server answers on
another one. What is lent, and how it comes back, is told in `modelserver.lent`; why nothing is lost when the model
server dies, in `modelserver.journal`. Owned by `process.ModelProcess`; belongs to its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from enginehouse.modelserver.journal import (
    BUSY_SINCE,
    N_ANSWERS,
    N_COUNTERS,
    N_SLOTS,
    N_UNTOLD,
    USED_AT,
    Journal,
    counts,
)
from enginehouse.modelserver.lent import EVERY, LEND, MAX_HEAD_BYTES, MAX_REQUEST_BYTES, MESSAGE, RECALL, TELL
from enginehouse.modelserver.telling import Ring, Told
from enginehouse.serving.types import ServedVersion

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})(?=\r\n)", re.IGNORECASE)
_SPECIAL = re.compile(rb"\r\n(transfer-encoding|expect|upgrade|connection)[ \t]*:", re.IGNORECASE)
_KEEP_ALIVE = re.compile(rb"\r\nconnection: keep-alive(?=\r\n)", re.IGNORECASE)


class Connection(Protocol):
    """A client connection that may be lent: the engine has answered its last request and reads no more from it."""

    def fileno(self) -> int:
        """The engine's descriptor of the connection; -1 when it is closed."""
        ...

    def returned(self, *, expired: bool) -> None:
        """The connection is the engine's again; with `expired`, its next request has already waited too long."""
        ...

    def abort(self) -> None:
        """Close the connection: an answer is out in part."""
        ...


class Head(NamedTuple):
    """The head of a request around the digits of its content length."""

    prefix: bytes
    suffix: bytes

    @classmethod
    def of(cls, data: bytes) -> Head | None:
        """The head that `data` begins with; None when it is not whole, or of a kind that is not lent."""
        end = data.find(b"\r\n\r\n") + 4
        head = data[:end]
        if not 4 < end <= MAX_HEAD_BYTES or _SPECIAL.search(_KEEP_ALIVE.sub(b"", head)):
            return None
        lengths = list(_LENGTH.finditer(head))
        if len(lengths) != 1 or int(lengths[0][1]) + end > MAX_REQUEST_BYTES:
            return None
        start, stop = lengths[0].span(1)
        return cls(head[:start], head[stop:])


class Telling(NamedTuple):
    """What is known of the requests on a lent connection beforehand: the version as it was then, and the path."""

    version: ServedVersion
    path: str


class _Loan(NamedTuple):
    connection: Connection
    base: tuple[int, int]


class Lender:
    """The connections that are lent to one model server.

    Args:
        channel: SEQPACKET socket to the model server.
        journal_fd: of the shared memory; closed here.

    Attributes:
        has_ended: whether the model server is gone, and all is settled.
    """

    def __init__(self, channel: socket.socket, journal_fd: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._journal = Journal(journal_fd)
        os.close(journal_fd)
        self._ring = Ring(self._journal)
        self._tellings: list[Telling] = []
        self._loans: dict[int, _Loan | None] = {}
        self._free = list(range(N_SLOTS))
        self._all_returned: asyncio.Future[None] | None = None
        self._open = True
        self.has_ended = False
        channel.setblocking(False)
        self._loop.add_reader(channel, self._receive)

    def __len__(self) -> int:
        return len(self._loans)

    @property
    def n_answers(self) -> int:
        """Answers given on lent connections so far."""
        return self._journal.words[N_ANSWERS]

    @property
    def counters(self) -> list[int]:
        """The counters of the journal, by word."""
        return self._journal.words[:N_COUNTERS].tolist()

    @property
    def unused_s(self) -> float:
        """Seconds since the last of them."""
        return (time.monotonic_ns() - self._journal.words[USED_AT]) / 1e9

    @property
    def busy_s(self) -> float:
        """For how long one batch has been gathered and run; 0 when none is."""
        since_ns = self._journal.words[BUSY_SINCE]
        return (time.monotonic_ns() - since_ns) / 1e9 if since_ns else 0.0

    @property
    def n_untold(self) -> int:
        """Requests on lent connections that were to be told of, and found no room."""
        return self._journal.words[N_UNTOLD]

    def take_told(self) -> Iterator[tuple[Telling, Told]]:
        """What the model server told since the last call, also after its end. From any thread, one at a time."""
        for record in self._ring.take():
            told = Told.unpack(record)
            yield self._tellings[told.telling - 1], told

    def lend(self, connection: Connection, head: Head, telling: Telling | None = None) -> int | None:
        """Hand a connection over; its number here, or None when that cannot be done now.

        Args:
            telling: given where requests are to be told of, as its version says (`take_told`).
        """
        if not self._open or not self._free or self._all_returned is not None:
            return None
        slot = self._free.pop()
        fd = connection.fileno()
        try:
            with _duplicate(connection) as duplicate:
                base = counts(duplicate)
            self._journal.clear(slot)
            message = MESSAGE.pack(LEND, slot, len(head.prefix)) + self._tell(telling) + head.prefix + head.suffix
            socket.send_fds(self._channel, [message], [fd])
        except OSError:
            self._free.append(slot)
            return None
        self._loans[slot] = _Loan(connection, base)
        return slot

    def forget(self, slot: int) -> None:
        """A lent connection was closed from here."""
        if slot in self._loans:
            self._loans[slot] = None
            self.recall(slot)

    def recall(self, slot: int = EVERY) -> None:
        """Ask for a connection, or all, back. A dead server's come back by themselves."""
        with contextlib.suppress(OSError):
            self._channel.send(MESSAGE.pack(RECALL, slot, 0))

    async def recall_all(self) -> None:
        """Get all back, each after the answer that is under way, and lend no more until then."""
        if self._loans and self._open:
            if self._all_returned is None:
                self._all_returned = self._loop.create_future()
            self.recall()
            await asyncio.shield(self._all_returned)

    def server_ended(self, *, timeout_s: float) -> None:
        """Take everything back from a model server whose process is gone.

        Args:
            timeout_s: a request that has been there for longer is not tried again.
        """
        if not self._open:
            return
        self._receive()
        self._close()
        for slot, loan in list(self._loans.items()):
            usable = expired = False
            if loan is not None:
                with contextlib.suppress(OSError), _duplicate(loan.connection) as connection:
                    usable = self._journal.settle(slot, connection, loan.base)
                    waited_s = (time.monotonic_ns() - self._journal.peeked_at(slot)) / 1e9
                    expired = self.busy_s > 0 and waited_s >= timeout_s and _has_data(connection)
            self._end(slot, expired=expired)
            if loan is not None and not usable:
                loan.connection.abort()
        self.has_ended = True

    def _tell(self, telling: Telling | None) -> bytes:
        if telling is None:
            return TELL.pack(0, 0.0, False)
        if telling not in self._tellings:
            self._tellings.append(telling)
        sample = telling.version.sample
        share = 0.0 if sample is None else sample.share
        return TELL.pack(self._tellings.index(telling) + 1, share, telling.version.logs_access)

    def _receive(self) -> None:
        while True:
            try:
                message = self._channel.recv(MESSAGE.size)
            except OSError:
                return
            if not message:
                self._loop.remove_reader(self._channel)
                return
            self._end(MESSAGE.unpack(message)[1], expired=False)

    def _end(self, slot: int, *, expired: bool) -> None:
        loan = self._loans.pop(slot)
        self._free.append(slot)
        if self._all_returned is not None and not self._loans:
            self._all_returned.set_result(None)
            self._all_returned = None
        if loan is not None:
            loan.connection.returned(expired=expired)

    def _close(self) -> None:
        self._open = False
        self._loop.remove_reader(self._channel)
        self._channel.close()


def _duplicate(connection: Connection) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.fileno()))


def _has_data(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
