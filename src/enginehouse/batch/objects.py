"""Objects of the engine's buckets by HTTP, with nothing but the standard library.

What fails for a moment (an engine that is started anew, a connection that breaks) is tried again for an hour: a job
outlives its engine. Reads go on where they broke off.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
_PATIENCE_S = 3600.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_TIMEOUT_S = 120.0
_BOUNDARY = "enginehouse-batch-part"


class ObjectError(Exception):
    """The storage refused, or could not be reached for too long."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _TryAgain(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class Object:
    """One generation of an object. `metadata` is what its writer said of it."""

    bucket: str
    name: str
    generation: str
    size_bytes: int
    metadata: dict[str, str]

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


class Objects:
    """The buckets at `url`. Belongs to one thread."""

    def __init__(
        self,
        url: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._sleep = sleep
        self._monotonic = monotonic
        self._connection: http.client.HTTPConnection | None = None

    @classmethod
    def from_environment(cls) -> Objects:
        """Those of the engine that started this process."""
        return cls(os.environ["STORAGE_EMULATOR_HOST"])

    def list(self, bucket: str, prefix: str) -> Iterator[Object]:
        """All objects whose names begin so, by name."""
        token = ""
        while True:
            query = urlencode({"prefix": prefix, "pageToken": token})
            page = json.loads(self._call("GET", "/storage/v1/b/{}/o?{}".format(quote(bucket, safe=""), query)))
            for item in page.get("items", []):
                yield _object(item)
            token = page.get("nextPageToken", "")
            if not token:
                return

    def get(self, bucket: str, name: str) -> Object | None:
        """The newest generation, None where there is none."""
        try:
            return _object(json.loads(self._call("GET", _path(bucket, name))))
        except ObjectError as error:
            if error.status == 404:
                return None
            raise

    def delete(self, bucket: str, name: str) -> None:
        """Remove an object; one that is gone already is none to complain of."""
        try:
            self._call("DELETE", _path(bucket, name))
        except ObjectError as error:
            if error.status != 404:
                raise

    def content(self, bucket: str, name: str) -> bytes:
        """The whole content, for small objects."""
        return self._call("GET", _path(bucket, name) + "?alt=media")

    def read(self, bucket: str, name: str, generation: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not with, `end` of one generation, in pieces of up to 1 MiB."""
        position = start
        failing_since: float | None = None
        while position < end:
            try:
                for piece in self._stream(_path(bucket, name), generation, position, end):
                    position += len(piece)
                    failing_since = None
                    yield piece
            except _TryAgain as error:
                failing_since = self._wait(failing_since, error)

    def upload(self, bucket: str, name: str, content: BinaryIO, size_bytes: int, metadata: dict[str, str]) -> None:
        """Write an object in one step from the first `size_bytes` of a file."""
        info = json.dumps({"name": name, "contentType": "text/plain; charset=utf-8", "metadata": metadata})
        head = (
            f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{info}\r\n"
            f"--{_BOUNDARY}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        ).encode()
        tail = (f"\r\n--{_BOUNDARY}--\r\n").encode()

        def body() -> Iterator[bytes]:
            content.seek(0)
            yield head
            left = size_bytes
            while left:
                piece = content.read(min(CHUNK_BYTES, left))
                left -= len(piece)
                yield piece
            yield tail

        headers = {
            "Content-Type": "multipart/related; boundary=" + _BOUNDARY,
            "Content-Length": str(len(head) + size_bytes + len(tail)),
        }
        path = "/upload/storage/v1/b/{}/o?uploadType=multipart".format(quote(bucket, safe=""))
        self._call("POST", path, body, headers)

    def _call(
        self,
        method: str,
        path: str,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        return self._patiently(lambda: self._once(method, path, body, headers or {}))

    def _once(
        self, method: str, path: str, body: Callable[[], Iterator[bytes]] | None, headers: dict[str, str]
    ) -> bytes:
        response = self._request(method, path, body() if body else None, headers)
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _stream(self, path: str, generation: str, start: int, end: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "gzip"}
        query = "?" + urlencode({"alt": "media", "generation": generation})
        response = self._request("GET", path + query, None, headers)
        try:
            while True:
                piece = response.read(CHUNK_BYTES)
                if not piece:
                    return
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        finally:
            if not response.isclosed():
                self._drop()

    def _request(
        self, method: str, path: str, body: Iterator[bytes] | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            if response.status < 300:
                return response
            text = response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error
        words = "{} {}: HTTP {} {}".format(method, path.partition("?")[0], response.status, _message(text))
        if response.status in (408, 429) or response.status >= 500:
            raise _TryAgain(words)
        raise ObjectError(words, response.status)

    def _patiently(self, call: Callable[[], T]) -> T:
        failing_since: float | None = None
        while True:
            try:
                return call()
            except _TryAgain as error:
                failing_since = self._wait(failing_since, error)

    def _wait(self, failing_since: float | None, error: _TryAgain) -> float:
        now = self._monotonic()
        since = now if failing_since is None else failing_since
        if now - since > _PATIENCE_S:
            raise ObjectError(f"The storage can't be reached: {error}") from error
        self._sleep(min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, now - since)))
        return since

    def _broken(self, error: Exception) -> _TryAgain:
        self._drop()
        return _TryAgain(f"{type(error).__name__}: {error}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _path(bucket: str, name: str) -> str:
    return "/storage/v1/b/{}/o/{}".format(quote(bucket, safe=""), quote(name, safe=""))


def _object(item: dict[str, Any]) -> Object:
    return Object(item["bucket"], item["name"], item["generation"], int(item["size"]), item.get("metadata", {}))


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]
