"""Buckets that lie elsewhere and are only read: the contract, and those of a Cloud Storage service.

Comes in: a bucket's name at a service that speaks the JSON API. Goes out: `ObjectInfo` and open files, as from
`storage.base.ObjectStore`. Called by `mapped`.
"""

from __future__ import annotations

import functools
import io
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import quote, urlencode, urlsplit

from enginehouse.core.errors import EngineError, InvalidArgument, NotFound, PermissionDenied, Unavailable
from enginehouse.core.names import check_bucket_id
from enginehouse.storage.base import BucketInfo, ListPage, ObjectInfo

REAL_SERVICE = "https://storage.googleapis.com"
TIMEOUT_S = 30.0
"""For a connection, and for each wait on it."""
_BUFFER_BYTES = 1024 * 1024
_MAX_JSON_BYTES = 64 * 1024 * 1024
_NANOSECONDS = 1_000_000_000
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class RemoteBucket(Protocol):
    """A bucket to read from. Thread-safe; arguments and errors are as of `ObjectStore`."""

    def info(self) -> BucketInfo:
        """The bucket; NotFound when it is not there."""
        ...

    def get(self, name: str, generation: int | None = None) -> ObjectInfo:
        """The newest generation of an object."""
        ...

    def open(self, name: str, generation: int | None = None) -> tuple[ObjectInfo, BinaryIO]:
        """As `get`, with the content open for reading and seeking."""
        ...

    def list(
        self,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_offset: str = "",
        end_offset: str = "",
        include_trailing_delimiter: bool = False,
        page_token: str = "",
        max_results: int = 1000,
    ) -> ListPage:
        """A page of objects by name."""
        ...


class Unreachable(Unavailable):
    """The service can't be reached at all: no network, no such host, a proxy that refuses."""


class Service:
    """A Cloud Storage service, asked without credentials.

    Args:
        url: scheme and host.
        environ: names the proxy (`https_proxy`, `http_proxy`, `no_proxy`) and the trusted certificates
            (`SSL_CERT_FILE` and its like). It must not name this engine's own gateway as the proxy.
    """

    def __init__(self, environ: Mapping[str, str], url: str = REAL_SERVICE) -> None:
        self.url = url.rstrip("/")
        self._environ = dict(environ)

    @functools.cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        # Made when it is first needed: reading all certificates takes time, and few engines look elsewhere.
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(_proxies(self._environ, self.url)),
            urllib.request.HTTPSHandler(context=_trust(self._environ)),
        )

    def open(self, path: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None) -> HTTPResponse:
        """GET; the caller closes the answer.

        Raises:
            NotFound, PermissionDenied, InvalidArgument, Unavailable: the service said so, with its words.
            Unreachable: there is no service.
        """
        url = f"{self.url}{path}?{urlencode(query)}"
        try:
            answer = self._opener.open(urllib.request.Request(url, headers=dict(headers or {})), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _told(error, self.url) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(f"{self.url} can't be reached: {reason}.") from None
        return cast(HTTPResponse, answer)

    def json(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """GET a JSON object; errors as of `open`."""
        try:
            with self.open(path, query) as answer:
                value = json.loads(answer.read(_MAX_JSON_BYTES))
        except (OSError, HTTPException, ValueError):
            raise Unavailable(f"{self.url} broke off its answer, or it is no JSON.") from None
        if not isinstance(value, dict):
            raise Unavailable(f"{self.url} does not answer as Cloud Storage.")
        return value


class ServiceBucket:
    """A `RemoteBucket` at a Cloud Storage service.

    Args:
        service: where it is.
        remote_name: its name there.
        name: its name here; the same if empty.
    """

    def __init__(self, service: Service, remote_name: str, name: str = "") -> None:
        self._service = service
        self._path = f"/storage/v1/b/{quote(check_bucket_id(remote_name), safe='')}"
        self._name = name or remote_name

    def info(self) -> BucketInfo:
        try:
            resource = self._service.json(self._path, {})
        except PermissionDenied:  # whose objects everybody may read, seldom lets everybody look at itself
            resource = {}
        return BucketInfo(
            name=self._name,
            location=str(resource.get("location", "US")),
            storage_class=str(resource.get("storageClass", "STANDARD")),
            created_ns=_time_ns(resource.get("timeCreated")),
            updated_ns=_time_ns(resource.get("updated")),
        )

    def get(self, name: str, generation: int | None = None) -> ObjectInfo:
        return self._object(self._service.json(f"{self._path}/o/{quote(name, safe='')}", _generation(generation)))

    def open(self, name: str, generation: int | None = None) -> tuple[ObjectInfo, BinaryIO]:
        info = self.get(name, generation)
        path = f"/download{self._path}/o/{quote(name, safe='')}"
        raw = _RemoteFile(self._service, path, {"alt": "media", **_generation(info.generation)}, info.size_bytes)
        return info, cast(BinaryIO, io.BufferedReader(raw, _BUFFER_BYTES))

    def list(
        self,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_offset: str = "",
        end_offset: str = "",
        include_trailing_delimiter: bool = False,
        page_token: str = "",
        max_results: int = 1000,
    ) -> ListPage:
        query = {
            "prefix": prefix,
            "delimiter": delimiter,
            "startOffset": start_offset,
            "endOffset": end_offset,
            "includeTrailingDelimiter": "true" if include_trailing_delimiter else "",
            "pageToken": page_token,
            "maxResults": str(max_results),
        }
        page = self._service.json(f"{self._path}/o", {name: value for name, value in query.items() if value})
        return ListPage(
            [self._object(resource) for resource in page.get("items", ())],
            [str(one) for one in page.get("prefixes", ())],
            str(page.get("nextPageToken", "")),
        )

    def _object(self, resource: Mapping[str, Any]) -> ObjectInfo:
        count = resource.get("componentCount")
        try:
            return ObjectInfo(
                bucket=self._name,
                name=str(resource["name"]),
                size_bytes=int(resource["size"]),
                md5=str(resource.get("md5Hash", "")),
                crc32c=str(resource.get("crc32c", "")),
                generation=int(resource["generation"]),
                metageneration=int(resource.get("metageneration", 1)),
                component_count=None if count is None else int(count),
                created_ns=_time_ns(resource.get("timeCreated")),
                updated_ns=_time_ns(resource.get("updated")),
                content_type=str(resource.get("contentType") or "application/octet-stream"),
                cache_control=resource.get("cacheControl"),
                content_disposition=resource.get("contentDisposition"),
                content_encoding=resource.get("contentEncoding"),
                content_language=resource.get("contentLanguage"),
                storage_class=str(resource.get("storageClass", "STANDARD")),
                metadata=dict(resource.get("metadata", {})),
            )
        except (KeyError, TypeError, ValueError):
            raise Unavailable(f"{self._service.url} does not answer as Cloud Storage.") from None


class _RemoteFile(io.RawIOBase):
    """Content that is asked for from where it is read, and as far as it is read."""

    def __init__(self, service: Service, path: str, query: Mapping[str, str], size_bytes: int) -> None:
        super().__init__()
        self._service = service
        self._path = path
        self._query = query
        self._size_bytes = size_bytes
        self._position = 0
        self._answer: HTTPResponse | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        position = max(start + offset, 0)
        if position != self._position:
            self._drop()
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size_bytes - self._position)
        if wanted <= 0:
            return 0
        if self._answer is None:
            # Or the service would unpack what is stored compressed, and its bytes would be other ones.
            headers = {"Range": f"bytes={self._position}-", "Accept-Encoding": "gzip"}
            self._answer = self._service.open(self._path, self._query, headers)
        count = self._answer.readinto(memoryview(buffer)[:wanted])
        if not count:
            raise OSError(f"{self._service.url} broke off at byte {self._position} of {self._size_bytes}.")
        self._position += count
        return count

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _told(error: urllib.error.HTTPError, url: str) -> EngineError:
    """The service's error as ours."""
    try:
        message = str(json.loads(error.read(_BUFFER_BYTES))["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        message = str(error.reason)
    text = f"{url} answers: {message}"
    if error.code == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return PermissionDenied(f"{text} It was asked without credentials, for what everybody may read.")
    return InvalidArgument(text) if error.code < HTTPStatus.INTERNAL_SERVER_ERROR else Unavailable(text)


def _generation(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"generation": str(generation)}


def _time_ns(text: object) -> int:
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * _NANOSECONDS)
    except ValueError:
        return 0


def _proxies(environ: Mapping[str, str], url: str) -> dict[str, str]:
    scheme, host = urlsplit(url).scheme, urlsplit(url).netloc

    def variable(name: str) -> str:
        return environ.get(name) or environ.get(name.upper()) or ""

    proxy = variable(f"{scheme}_proxy") or variable("all_proxy")
    excluded = urllib.request.proxy_bypass_environment(host, {"no": variable("no_proxy")})  # type: ignore[attr-defined]
    return {scheme: proxy} if proxy and not excluded else {}


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    file = next((environ[name] for name in _CA_VARIABLES if environ.get(name)), None)
    return ssl.create_default_context(cafile=file)
