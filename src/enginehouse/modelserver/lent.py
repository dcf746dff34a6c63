"""Client connections that the engine has lent to this model server: HTTP without a process in between.

The engine has read, judged and answered the first request of such a connection itself. Here only requests are
answered whose head is the same, byte for byte, but for the number after `Content-Length:`; so the path, the method
and the credentials are those that the engine has judged, and nothing of HTTP is parsed. Any other request, an end of
the stream, a request that stays incomplete: the connection goes back to the engine, with every byte still in the
kernel (`journal` tells why, and why a death of this process loses nothing).

Messages on the SEQPACKET socket to the engine, `struct` and payload:

    LEND slot prefix_bytes   with a file descriptor; payload: `TELL`, the head up to the number, and from there on
    RECALL slot              engine: give it back; EVERY for all
    RETURN slot              server: the connection is the engine's again
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import sys
import time
from http import HTTPStatus

from enginehouse.modelserver.journal import N_ANSWERS, USED_AT, Journal
from enginehouse.modelserver.telling import Ring, Told

MESSAGE = struct.Struct("=BII")
TELL = struct.Struct("=Id?")
"""The number by which requests are told of (`telling`), the share that is told with its bodies, whether all are."""
LEND, RECALL, RETURN = 1, 2, 3
EVERY = 0xFFFFFFFF
MAX_HEAD_BYTES = 8 * 1024
MAX_REQUEST_BYTES = 32 * 1024
"""More is better read than peeked at: the kernel need not hold it all."""
_MESSAGE_BYTES = MESSAGE.size + TELL.size + MAX_HEAD_BYTES
_FD_BYTES = socket.CMSG_LEN(4)
_RECEIVE_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_MAX_DIGITS = 7
_UNUSED_S = 75
_INCOMPLETE_S = 1
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Incomplete(Exception):
    """The rest of the request is still on its way."""


class NotOurs(Exception):
    """The engine must look at this request."""


class Lent:
    """One lent connection."""

    __slots__ = (
        "again",
        "connection",
        "out",
        "peeked_ns",
        "prefix",
        "read",
        "recalled",
        "request",
        "request_bytes",
        "seen_s",
        "share",
        "slot",
        "suffix",
        "telling",
        "tells_all",
        "told",
        "written",
    )

    def __init__(
        self,
        connection: socket.socket,
        slot: int,
        prefix: bytes,
        suffix: bytes,
        now_s: float,
        tell: tuple[int, float, bool] = (0, 0.0, False),
    ) -> None:
        self.connection = connection
        self.slot = slot
        self.prefix = prefix
        self.suffix = suffix
        self.telling, self.share, self.tells_all = tell
        self.written = 0
        self.read = 0
        self.request_bytes = 0
        """Size of the request that is being answered; 0 between requests."""
        self.out = b""
        """What of its answer the kernel has not taken yet."""
        self.request = b""
        self.told = b""
        """What the engine is told of it when its answer is out; nothing for b""."""
        self.again = False
        """More has arrived, or may have, than the request that is being answered."""
        self.recalled = False
        self.seen_s = now_s
        self.peeked_ns = 0

    def body(self, data: bytes) -> bytes:
        """The body of the request that `data` begins with; sets `request_bytes`.

        Raises:
            Incomplete: more data is needed.
            NotOurs: the head is another one, or the request too large.
        """
        prefix, suffix = self.prefix, self.suffix
        start = len(prefix)
        if not data.startswith(prefix):
            raise Incomplete if prefix.startswith(data) else NotOurs
        end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        if end < 0:
            tail = data[start:]
            raise Incomplete if len(tail) <= _MAX_DIGITS and (not tail or tail.isdigit()) else NotOurs
        digits = data[start:end]
        if not digits.isdigit():
            raise NotOurs
        if not data.startswith(suffix, end):
            raise Incomplete if suffix.startswith(data[end:]) else NotOurs
        start = end + len(suffix)
        end = start + int(digits)
        if end > MAX_REQUEST_BYTES:
            raise NotOurs
        if len(data) < end:
            raise Incomplete
        self.request_bytes = end
        self.again |= len(data) > end
        self.request = data[start:end]
        return self.request

    def tell(self, status: int, body: bytes) -> bytes:
        """What the engine wants to be told of the request and its answer."""
        is_kept = status == HTTPStatus.OK and random.random() < self.share
        if not is_kept and not self.tells_all:
            return b""
        took_ns = time.monotonic_ns() - self.peeked_ns
        sizes = len(self.request), len(body)
        bodies = (self.request, body) if is_kept else (b"", b"")
        return Told(self.telling, status, *sizes, time.time_ns(), took_ns, *bodies).pack()


class LentConnections:
    """All lent connections. Belongs to one thread, which calls `take` for what the poll reports.

    Args:
        channel: SEQPACKET socket to the engine.
        journal: shared with the engine.
        poll: where the connections are registered, edge-triggered.
    """

    def __init__(self, channel: socket.socket, journal: Journal, poll: select.epoll) -> None:
        self._channel = channel
        self._journal = journal
        self._poll = poll
        self._ring = Ring(journal)
        self._by_fd: dict[int, Lent] = {}
        self._buffer = bytearray(MAX_REQUEST_BYTES + MAX_HEAD_BYTES)
        self._view = memoryview(self._buffer)
        self._head_s = 0
        self._head = b""
        poll.register(channel, select.EPOLLIN)

    def __len__(self) -> int:
        return len(self._by_fd)

    def receive(self) -> None:
        """Read the engine's messages. What new connections bring is reported by the poll."""
        while True:
            try:
                # Not `socket.recv_fds`, which drops the flags.
                message, ancillary, _, _ = self._channel.recvmsg(_MESSAGE_BYTES, _FD_BYTES, _RECEIVE_FLAGS)
            except BlockingIOError:
                return
            if not message:
                self._poll.unregister(self._channel)
                return
            kind, slot, prefix_bytes = MESSAGE.unpack_from(message)
            if kind == LEND:
                tell = TELL.unpack_from(message, MESSAGE.size)
                head = message[MESSAGE.size + TELL.size :]
                connection = socket.socket(fileno=int.from_bytes(ancillary[0][2][:4], sys.byteorder))
                lent = Lent(connection, slot, head[:prefix_bytes], head[prefix_bytes:], time.monotonic(), tell)
                self._by_fd[connection.fileno()] = lent
                self._poll.register(connection, _EVENTS)
            else:
                for lent in list(self._by_fd.values()):
                    if slot in (lent.slot, EVERY):
                        lent.recalled = True
                        if not lent.request_bytes:
                            self._give_back(lent)

    def take(self, fd: int, event: int) -> list[tuple[Lent, bytes]]:
        """What arrived on a connection: its next request, if it is whole and ours."""
        lent = self._by_fd.get(fd)
        if lent is None:
            return []
        if lent.request_bytes:
            lent.again = True
            return self._send_rest(lent) if lent.out else []
        lent.again = bool(event & select.EPOLLRDHUP)
        return self._look(lent)

    def answer(self, lent: Lent, status: int, body: bytes, now_s: float) -> list[tuple[Lent, bytes]]:
        """Send an answer; the next request on the connection, if it is here already."""
        if self._by_fd.get(lent.connection.fileno()) is not lent:
            return []
        lent.out = self._head_of(status, now_s) + b"%d\r\n\r\n%b" % (len(body), body)
        end = lent.written + len(lent.out)
        self._journal.answering(lent.slot, lent.written, end, lent.read + lent.request_bytes)
        lent.seen_s = now_s
        if lent.telling:
            lent.told = lent.tell(status, body)
        return self._send_rest(lent)

    def look_after(self, now_s: float) -> None:
        """Give back what has not been used for long, or stays incomplete. Called about once a second."""
        for lent in list(self._by_fd.values()):
            unused_s = now_s - lent.seen_s
            if not lent.request_bytes and (unused_s > _UNUSED_S or (unused_s > _INCOMPLETE_S and lent.again)):
                self._give_back(lent)

    def _look(self, lent: Lent) -> list[tuple[Lent, bytes]]:
        try:
            size_bytes = lent.connection.recv_into(self._view, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if size_bytes:
                body = lent.body(bytes(self._view[:size_bytes]))
                lent.peeked_ns = time.monotonic_ns()
                self._journal.peeked(lent.slot, lent.peeked_ns)
                return [(lent, body)]
        except BlockingIOError:
            return []
        except Incomplete:
            lent.again = True
            return []
        except (NotOurs, OSError):
            pass
        self._give_back(lent)
        return []

    def _send_rest(self, lent: Lent) -> list[tuple[Lent, bytes]]:
        if lent.told:
            self._ring.prepare(lent.told, lent.slot)
        try:
            sent = lent.connection.send(lent.out, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._give_back(lent)
            return []
        lent.written += sent
        if sent < len(lent.out):
            lent.out = lent.out[sent:]
            self._poll.modify(lent.connection, _EVENTS | select.EPOLLOUT)
            return []
        lent.out = b""
        size_bytes = lent.request_bytes
        lent.connection.recv_into(self._view, size_bytes, socket.MSG_TRUNC | socket.MSG_DONTWAIT)
        lent.read += size_bytes
        lent.request_bytes = 0
        self._journal.words[N_ANSWERS] += 1
        if lent.told:
            self._ring.put()
            lent.told = b""
        if lent.recalled:
            self._give_back(lent)
        elif lent.again:
            lent.again = False
            return self._look(lent)
        return []

    def _give_back(self, lent: Lent) -> None:
        fd = lent.connection.fileno()
        if self._by_fd.pop(fd, None) is None:
            return
        if lent.told:
            self._ring.withdraw()
        self._poll.unregister(fd)
        lent.connection.close()
        with contextlib.suppress(OSError):  # the engine is gone, and so are we soon
            self._channel.send(MESSAGE.pack(RETURN, lent.slot, 0))

    def _head_of(self, status: int, now_s: float) -> bytes:
        if status != 200:
            return _head(status)
        second = int(now_s)
        if second != self._head_s:
            self._head_s, self._head = second, _head(200)
            self._journal.words[USED_AT] = time.monotonic_ns()
        return self._head


def _head(status: int) -> bytes:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    again = "retry-after: 1\r\n" if status == HTTPStatus.TOO_MANY_REQUESTS else ""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ndate: {date}\r\n{again}"
        "content-type: application/json; charset=UTF-8\r\ncontent-length: "
    ).encode()
