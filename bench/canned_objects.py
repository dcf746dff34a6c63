"""The cheapest server there can be for `objects.py`: what it costs the client alone.

It knows no store: every answer but the large file's bytes, which the kernel sends where no TLS is between, is ready
before it listens, and what is uploaded is dropped. What a client needs with it is about the least it can need with
any server. Started by `objects.py`; prints its port, and the port where it is a proxy for storage.googleapis.com.

    python bench/canned_objects.py LARGE_FILE SMALL_FILE COUNT RESOURCE_JSON CA_DIRECTORY
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import sys
import threading
from pathlib import Path

import google_crc32c

from enginehouse.gateway.ca import CertificateAuthority

PAGE_SIZE = 1000
_BLOCK_BYTES = 1024 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RANGE = re.compile(rb"\r\ncontent-range: *bytes \d+-(\d+)/(\d+)", re.IGNORECASE)
_HOST = re.compile(rb"\r\nhost: *(\S+)", re.IGNORECASE)


class Answers:
    """Everything that is ever answered; objects are told apart by a part of the request line."""

    def __init__(self, large: Path, small: Path, count: int, resource: dict[str, object]) -> None:
        self.large = large.open("rb")
        self.large_bytes = large.stat().st_size
        checksum = google_crc32c.Checksum()
        while block := self.large.read(_BLOCK_BYTES):
            checksum.update(block)
        self.large_head = _head(self.large_bytes, checksum.digest())
        content = small.read_bytes()
        self.small = _head(len(content), google_crc32c.Checksum(content).digest()) + content
        self.pages = {start: _page(start, count, resource) for start in range(0, count, PAGE_SIZE)}
        stored = {**resource, "name": "large", "size": str(self.large_bytes)}
        stored["crc32c"] = base64.b64encode(checksum.digest()).decode()
        stored.pop("md5Hash", None)
        text = json.dumps(stored).encode()
        self.stored = _head(len(text), b"") + text

    def send(self, connection: socket.socket, head: bytes) -> None:
        request_line = head.split(b"\r\n", 1)[0]
        if b"uploadType=resumable" in request_line or request_line.startswith((b"POST ", b"DELETE ")):
            scheme = b"https://" if isinstance(connection, ssl.SSLSocket) else b"http://"
            connection.sendall(self._uploaded(head, request_line, scheme))
        elif b"/o/large" in request_line:
            connection.sendall(self.large_head)
            sent = 0
            if isinstance(connection, ssl.SSLSocket):
                while block := os.pread(self.large.fileno(), _BLOCK_BYTES, sent):
                    connection.sendall(block)
                    sent += len(block)
            while sent < self.large_bytes:
                sent += os.sendfile(connection.fileno(), self.large.fileno(), sent, self.large_bytes - sent)
        elif b"/o/small" in request_line:
            connection.sendall(self.small)
        else:
            token = request_line.partition(b"pageToken=")[2].split(b"&")[0].split(b" ")[0]
            connection.sendall(self.pages[int(token or 0)])

    def _uploaded(self, head: bytes, request_line: bytes, scheme: bytes) -> bytes:
        """The answer to the beginning of an upload, a part of it, or its end."""
        if request_line.startswith(b"POST ") and b"uploadType=resumable" in request_line:
            found = _HOST.search(head)
            assert found
            location = scheme + found[1] + b"/upload/storage/v1/b/b/o?uploadType=resumable&upload_id=1"
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
        part = _RANGE.search(head)
        if part and int(part[1]) + 1 < int(part[2]):
            return b"HTTP/1.1 308 Resume Incomplete\r\nContent-Length: 0\r\nRange: bytes=0-" + part[1] + b"\r\n\r\n"
        return self.stored


def main() -> None:
    large, small, count, resource, ca_dir = sys.argv[1:]
    answers = Answers(Path(large), Path(small), int(count), json.loads(resource))
    tls = CertificateAuthority(Path(ca_dir)).context("storage.googleapis.com")
    with socket.create_server(("127.0.0.1", 0)) as plain, socket.create_server(("127.0.0.1", 0)) as proxy:
        print(plain.getsockname()[1], proxy.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(proxy, answers, tls), daemon=True).start()
        _accept(plain, answers, None)


def _accept(listener: socket.socket, answers: Answers, tls: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, answers, tls), daemon=True).start()


def _serve(connection: socket.socket, answers: Answers, tls: ssl.SSLContext | None) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        while not connection.recv(_BLOCK_BYTES).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection = tls.wrap_socket(connection, server_side=True)
    buffer = bytearray(_BLOCK_BYTES)
    pending = b""
    while data := connection.recv(_BLOCK_BYTES):
        pending += data
        while b"\r\n\r\n" in pending:
            head, _, pending = pending.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            left = (int(length[1]) if length else 0) - len(pending)
            pending = b"" if left >= 0 else pending[left:]
            while left > 0:
                got = connection.recv_into(buffer, min(left, _BLOCK_BYTES))
                if not got:
                    return
                left -= got
            answers.send(connection, head)


def _head(size_bytes: int, crc32c: bytes) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: application/octet-stream",
        f"Content-Length: {size_bytes}",
        "X-Goog-Generation: 1",
    ]
    if crc32c:
        lines.append(f"X-Goog-Hash: crc32c={base64.b64encode(crc32c).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _page(start: int, count: int, resource: dict[str, object]) -> bytes:
    stop = min(start + PAGE_SIZE, count)
    body: dict[str, object] = {"kind": "storage#objects"}
    body["items"] = [{**resource, "name": f"small/{index:06}"} for index in range(start, stop)]
    if stop < count:
        body["nextPageToken"] = str(stop)
    text = json.dumps(body).encode()
    return _head(len(text), b"") + text


if __name__ == "__main__":
    main()
