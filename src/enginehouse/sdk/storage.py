"""Buckets and objects over the Cloud Storage JSON API, with every transfer checked against the object's checksum.

Thread-safe. Uploads over `RESUMABLE_FROM_BYTES` go in pieces and survive a broken connection; downloads go on where
they stopped, pinned to the generation they began with.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from enginehouse.core.errors import Internal, NotFound, Unavailable
from enginehouse.core.names import ObjectUri
from enginehouse.sdk.objects import (
    READ_BYTES,
    Checksum,
    Listing,
    OnBytes,
    RemoteObject,
    guess_content_type,
    ignore_bytes,
    verified,
)
from enginehouse.sdk.transport import Response, Transport

RESUMABLE_FROM_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 8 * 1024 * 1024
_TRIES = 4
_RETRY_S = 0.3


class Storage:
    """The storage API of one engine."""

    def __init__(self, transport: Transport, project: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._transport = transport
        self._project = project
        self._sleep = sleep

    # Buckets

    def create_bucket(self, bucket: str, *, location: str = "US") -> dict[str, Any]:
        body = {"name": bucket, "location": location.upper()}
        return dict(self._transport.json("POST", "/storage/v1/b", body, query={"project": self._project}))

    def get_bucket(self, bucket: str) -> dict[str, Any]:
        return dict(self._transport.json("GET", _bucket_path(bucket)))

    def bucket_exists(self, bucket: str) -> bool:
        try:
            self.get_bucket(bucket)
        except NotFound:
            return False
        return True

    def list_buckets(self) -> Iterator[dict[str, Any]]:
        for page in self._pages("/storage/v1/b", {"project": self._project}):
            yield from page.get("items", [])

    def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket."""
        self._transport.request("DELETE", _bucket_path(bucket))

    # Objects

    def list(self, bucket: str, prefix: str = "") -> Iterator[RemoteObject]:
        """All objects whose names begin with `prefix`, by name."""
        for page in self._pages(f"{_bucket_path(bucket)}/o", {"prefix": prefix or None}):
            yield from map(RemoteObject.from_resource, page.get("items", []))

    def list_level(self, bucket: str, prefix: str = "") -> Listing:
        """The objects and sub-prefixes whose names begin with `prefix` and have no further `/`."""
        objects: list[RemoteObject] = []
        prefixes: list[str] = []
        for page in self._pages(f"{_bucket_path(bucket)}/o", {"prefix": prefix or None, "delimiter": "/"}):
            objects += map(RemoteObject.from_resource, page.get("items", []))
            prefixes += page.get("prefixes", [])
        return Listing(objects, prefixes)

    def has_prefix(self, uri: ObjectUri) -> bool:
        """Whether any object lies below `uri` as a folder (in the bucket, when its name is empty)."""
        prefix = uri.name.rstrip("/") + "/" if uri.name else None
        query = {"prefix": prefix, "maxResults": 1}
        page = self._transport.json("GET", f"{_bucket_path(uri.bucket)}/o", query=query)
        return bool(page.get("items"))

    def stat(self, uri: ObjectUri) -> RemoteObject:
        """The object itself.

        Raises:
            NotFound: there is no such object or bucket.
        """
        return RemoteObject.from_resource(self._transport.json("GET", _object_path(uri)))

    def find(self, uri: ObjectUri) -> RemoteObject | None:
        """`stat`, or None where there is no such object."""
        try:
            return self.stat(uri)
        except NotFound:
            return None

    def delete(self, uri: ObjectUri) -> None:
        self._transport.request("DELETE", _object_path(uri))

    def copy(self, source: ObjectUri, target: ObjectUri) -> RemoteObject:
        """Copy within the engine; no byte comes here."""
        path = f"{_object_path(source)}/rewriteTo{_object_path(target).removeprefix('/storage/v1')}"
        token: str | None = None
        while True:
            reply = self._transport.json("POST", path, {}, query={"rewriteToken": token})
            if reply.get("done"):
                return RemoteObject.from_resource(reply["resource"])
            token = reply["rewriteToken"]

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = self._transport.json("GET", path, query={**query, "maxResults": 1000, "pageToken": token})
            yield page
            token = page.get("nextPageToken")
            if not token:
                return

    # Upload

    def upload_file(self, path: Path, uri: ObjectUri, *, on_bytes: OnBytes = ignore_bytes) -> RemoteObject:
        """Upload a local file.

        Raises:
            FileNotFoundError: there is no such file.
            Aborted: the file changed meanwhile, or what arrived differs from what was sent.
        """
        with path.open("rb") as file:
            return self.upload(file, uri, content_type=guess_content_type(uri.name), on_bytes=on_bytes)

    def upload(
        self,
        source: BinaryIO,
        uri: ObjectUri,
        *,
        content_type: str = "application/octet-stream",
        on_bytes: OnBytes = ignore_bytes,
    ) -> RemoteObject:
        """Upload all that `source` gives; it need not be seekable nor know its length."""
        head = _read_exactly(source, RESUMABLE_FROM_BYTES + 1)
        if len(head) <= RESUMABLE_FROM_BYTES:
            return self._upload_at_once(head, uri, content_type, on_bytes)
        return self._upload_resumable(head, source, uri, content_type, on_bytes)

    def _upload_at_once(self, data: bytes, uri: ObjectUri, content_type: str, on_bytes: OnBytes) -> RemoteObject:
        resource = json.dumps({"name": uri.name, "contentType": content_type})
        boundary = f"=={secrets.token_hex(16)}=="
        body = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{resource}\r\n"
            f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n"
        ).encode()
        body += data + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f'multipart/related; boundary="{boundary}"'}
        path, query = f"/upload{_bucket_path(uri.bucket)}/o", {"uploadType": "multipart"}
        for attempt in range(1, _TRIES + 1):
            try:
                told = self._transport.request("POST", path, query=query, body=body, headers=headers).json()
                break
            except Unavailable:  # the same bytes under the same name: sending them again does no harm
                if attempt == _TRIES:
                    raise
                self._sleep(_RETRY_S * attempt)
        on_bytes(len(data))
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return verified(RemoteObject.from_resource(told), md5, len(data))

    def _upload_resumable(
        self, head: bytes, source: BinaryIO, uri: ObjectUri, content_type: str, on_bytes: OnBytes
    ) -> RemoteObject:
        started = self._transport.request(
            "POST",
            f"/upload{_bucket_path(uri.bucket)}/o",
            query={"uploadType": "resumable", "name": uri.name},
            body=json.dumps({"name": uri.name, "contentType": content_type}).encode(),
            headers={"Content-Type": "application/json", "X-Upload-Content-Type": content_type},
        )
        location = urlsplit(started.headers["location"])
        session = f"{location.path}?{location.query}"
        md5 = hashlib.md5(usedforsecurity=False)
        offset, piece, ahead = 0, head[:_PIECE_BYTES], head[_PIECE_BYTES:]
        while True:
            # One byte of look-ahead tells the last piece, whose range names the total size.
            if not ahead:
                ahead = source.read(1)
            total = offset + len(piece) if not ahead else None
            answer = self._put_piece(session, piece, offset, total, on_bytes)
            md5.update(piece)
            offset += len(piece)
            if total is not None:
                return verified(RemoteObject.from_resource(answer.json()), md5.digest(), offset)
            piece = ahead + _read_exactly(source, _PIECE_BYTES - len(ahead))
            ahead = b""

    def _put_piece(self, session: str, piece: bytes, offset: int, total: int | None, on_bytes: OnBytes) -> Response:
        """Send one piece until the engine has all of it, asking what it has after a broken connection."""
        end, size = offset + len(piece), "*" if total is None else str(total)
        have = offset
        for attempt in range(_TRIES):
            try:
                if attempt:
                    self._sleep(_RETRY_S * attempt)
                    asked = self._put(session, b"", f"bytes */{size}")
                    if asked.status != 308:
                        on_bytes(end - have)
                        return asked
                    kept = max(offset, _have_bytes(asked))
                    on_bytes(kept - have)
                    have = kept
                answer = self._put(session, piece[have - offset :], f"bytes {have}-{end - 1}/{size}")
                now = _have_bytes(answer) if answer.status == 308 else end
                on_bytes(now - have)
                have = now
                if have >= end:
                    return answer
            except Unavailable:
                if attempt == _TRIES - 1:
                    raise
        raise Unavailable(f"The engine took only {have} of {end} bytes.")

    def _put(self, session: str, data: bytes, content_range: str) -> Response:
        return self._transport.request("PUT", session, body=data, headers={"Content-Range": content_range})

    # Download

    def download_file(self, source: RemoteObject, path: Path, *, on_bytes: OnBytes = ignore_bytes) -> None:
        """Download into a local file, which appears only when it is whole and right."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with temporary.open("wb") as sink:
                self.download(source, sink, on_bytes=on_bytes)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def download(self, source: RemoteObject, sink: BinaryIO, *, on_bytes: OnBytes = ignore_bytes) -> None:
        """Download into a file-like, going on where it stopped after a broken connection.

        Raises:
            NotFound: the object is gone, or another generation took its place.
            Aborted: what arrived differs from the object's checksum.
        """
        check = Checksum(source)
        offset, failures = 0, 0
        while offset < source.size_bytes:
            before = offset
            try:
                for piece in self.read(source, start=offset):
                    sink.write(piece)
                    check.update(piece)
                    offset += len(piece)
                    on_bytes(len(piece))
            except Unavailable:
                failures = 0 if offset > before else failures + 1
                if failures >= _TRIES:
                    raise
                self._sleep(_RETRY_S * (failures + 1))
        check.verify(offset)

    def read(self, source: RemoteObject, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `start` up to but not including `end`, unchecked.

        Raises:
            Unavailable: the connection broke before all had come.
        """
        stop = source.size_bytes if end is None else min(end, source.size_bytes)
        if start >= stop:
            return
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept": "*/*"}
        query = {"alt": "media", "generation": source.generation or None}
        with self._transport.stream("GET", _object_path(source.uri), query=query, headers=headers) as answer:
            left = stop - start
            while left:
                try:
                    piece = answer.read(min(READ_BYTES, left))
                except (OSError, http.client.HTTPException) as error:
                    raise Unavailable(f"The connection broke while {source.uri} was read: {error}") from error
                if not piece:
                    raise Unavailable(f"The connection broke while {source.uri} was read.")
                left -= len(piece)
                yield piece
            answer.read()  # takes the end of a chunked answer, so that the connection can be used again


def _have_bytes(answer: Response) -> int:
    """How many bytes a 308 answer says are stored; its header `Range: bytes=0-N` is absent for none."""
    told = answer.headers.get("range", "")
    if not told:
        return 0
    try:
        return int(told.rpartition("-")[2]) + 1
    except ValueError:
        raise Internal(f"The engine answered an upload with the range {told!r}.") from None


def _read_exactly(source: BinaryIO, size_bytes: int) -> bytes:
    """`size_bytes` bytes, or fewer at the end; a pipe gives them in parts."""
    parts: list[bytes] = []
    while size_bytes > 0 and (part := source.read(size_bytes)):
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)


def _bucket_path(bucket: str) -> str:
    return f"/storage/v1/b/{quote(bucket, safe='')}"


def _object_path(uri: ObjectUri) -> str:
    return f"{_bucket_path(uri.bucket)}/o/{quote(uri.name, safe='')}"
