"""A client of the storage API that costs next to nothing, for `objects.py`: what the servers need by themselves.

It writes requests that were made before, reads answers into one buffer and looks at nothing but status and length.
Where google-cloud-storage spends most of the time within the client, this one leaves it to the server.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

_BUFFER_BYTES = 1024 * 1024
_HOST = "storage.googleapis.com"
_OBJECT = re.compile(rb'"kind": ?"storage#object"')
_NEXT_PAGE = re.compile(rb'"nextPageToken": ?"([^"]+)"')


@dataclass(frozen=True)
class Address:
    """Where a server is: its URL, or the gateway's with the certificates to trust."""

    url: str
    bundle: Path | None = None

    @property
    def host(self) -> str:
        return _HOST if self.bundle else urlsplit(self.url).netloc

    def connect(self) -> socket.socket:
        """A connection that is ready for requests."""
        parts = urlsplit(self.url)
        raw = socket.create_connection((parts.hostname, parts.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.bundle is None:
            return raw
        raw.sendall(f"CONNECT {_HOST}:443 HTTP/1.1\r\nHost: {_HOST}:443\r\n\r\n".encode())
        answer = raw.recv(4096)
        assert b" 200 " in answer.split(b"\r\n")[0], answer
        return ssl.create_default_context(cafile=self.bundle).wrap_socket(raw, server_hostname=_HOST)


class BareClient:
    """One connection, opened anew where the server closes it (the emulator speaks HTTP/1.0)."""

    def __init__(self, address: Address, bucket: str) -> None:
        self._address = address
        self._bucket = bucket
        self._socket: socket.socket | None = None
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def connect(self) -> None:
        if self._socket is None:
            self._socket = self._address.connect()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fetch(self, name: str, size_bytes: int) -> None:
        """Download an object, which must have this size."""
        path = f"/download/storage/v1/b/{self._bucket}/o/{quote(name, safe='')}?alt=media"
        got = sum(len(piece) for piece in self._ask("GET", path))
        assert got == size_bytes, f"{got} bytes of {name}"

    def list(self, prefix: str) -> int:
        """List all objects; how many there are. To parse the pages would take longer than to make them."""
        count, token = 0, ""
        while True:
            path = f"/storage/v1/b/{self._bucket}/o?prefix={quote(prefix, safe='')}&projection=noAcl"
            page = b"".join(map(bytes, self._ask("GET", path + (f"&pageToken={token}" if token else ""))))
            count += len(_OBJECT.findall(page))
            found = _NEXT_PAGE.search(page)
            if not found:
                return count
            token = quote(found[1].decode(), safe="")

    def upload(self, name: str, source: Path) -> None:
        """Upload a file in one request."""
        path = f"/upload/storage/v1/b/{self._bucket}/o?uploadType=media&name={quote(name, safe='')}"
        for _ in self._ask("POST", path, source):
            pass

    def delete(self, name: str) -> None:
        for _ in self._ask("DELETE", f"/storage/v1/b/{self._bucket}/o/{quote(name, safe='')}"):
            pass

    def _ask(self, method: str, path: str, source: Path | None = None) -> Iterator[memoryview]:
        """The pieces of the answer's body; each is valid until the next is asked for."""
        self.connect()
        assert self._socket is not None
        size_bytes = source.stat().st_size if source else 0
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._address.host}\r\n"
        if method == "POST":
            head += f"Content-Type: application/octet-stream\r\nContent-Length: {size_bytes}\r\n"
        self._socket.sendall(head.encode() + b"\r\n")
        if source is not None:
            with source.open("rb") as file:
                while read := file.readinto(self._buffer):
                    self._socket.sendall(self._buffer[:read])
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self._socket.recv(65536)
            assert data, f"the server closed the connection after {answer!r}"
            answer += data
        head_bytes, _, rest = answer.partition(b"\r\n\r\n")
        status = int(head_bytes.split(b" ", 2)[1])
        assert status < 300, head_bytes
        fields = dict(line.lower().split(b":", 1) for line in head_bytes.split(b"\r\n")[1:])
        left = int(fields.get(b"content-length", b"0")) - len(rest)
        if rest:
            yield memoryview(rest)
        while left > 0:
            got = self._socket.recv_into(self._buffer, min(left, _BUFFER_BYTES))
            assert got, "the server broke the answer off"
            left -= got
            yield self._buffer[:got]
        if head_bytes.startswith(b"HTTP/1.0") or b"close" in fields.get(b"connection", b""):
            self.close()


@contextmanager
def bare_client(address: Address, bucket: str) -> Iterator[BareClient]:
    """A client that is connected, and no more at the end."""
    client = BareClient(address, bucket)
    client.connect()
    try:
        yield client
    finally:
        client.close()
