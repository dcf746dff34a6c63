"""HTTP to the engine over kept-alive connections: one request in, one answer or one error out.

Thread safety: one `Transport` serves any number of threads; each thread has its own connection.
Retries: a GET or HEAD that met a refused, reset or dropped connection is sent again a few times, after asking anew
where the engine is (it may have come back on another port). Nothing else is ever sent twice.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from enginehouse import __version__
from enginehouse.core.errors import DeadlineExceeded, EngineError, Internal
from enginehouse.core.ids import new_id
from enginehouse.sdk.errors import EngineUnreachable, error_from_response

_RETRY_DELAYS_S = (0.05, 0.15, 0.4)
_IDEMPOTENT = ("GET", "HEAD")


@dataclass(frozen=True)
class Response:
    """An answer with status below 400 (308 included, which resumable uploads use)."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Internal: something that is not an engine answered.
        """
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError:
            start = self.body[:200].decode("utf-8", "replace")
            raise Internal(
                f"The answer is not JSON; is this an Enginehouse engine? It begins with {start!r}"
            ) from None


class Transport:
    """Requests to one engine.

    Args:
        find_url: asked for `http://HOST:PORT` before the first request and again after a broken connection.
        token: the engine's secret, which it wants from other machines; empty for none.
        timeout_s: longest silence of the engine before a request fails with `DeadlineExceeded`.
    """

    def __init__(self, find_url: Callable[[], str], *, token: str = "", timeout_s: float = 120.0) -> None:
        self._find_url = find_url
        self._headers = {"User-Agent": f"enginehouse-mle/{__version__}", "Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._local = threading.local()

    def address(self) -> tuple[str, dict[str, str]]:
        """Where the engine is, and the headers that requests have, for those who open connections of their own."""
        return self._find_url(), dict(self._headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Send one request and read the whole answer.

        Args:
            path: percent-encoded, beginning with `/`.
            query: None values are left out.
            timeout_s: in place of the transport's own.

        Raises:
            EngineUnreachable: nothing answered.
            EngineError: the engine's error answer.
        """
        with self.stream(method, path, query=query, body=body, headers=headers, timeout_s=timeout_s) as answer:
            try:
                data = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise self._broken(error) from error
            return Response(answer.status, _lower(answer), data)

    def json(self, method: str, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None) -> Any:
        """`request` with JSON in and out; a GET has no body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self.request(method, path, query=query, body=data, headers=headers).json()

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request and give the answer to be read bit by bit within the block.

        Arguments and errors are those of `request`. Leaving the block with unread bytes closes the connection.
        """
        given = {key: value for key, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given, quote_via=quote)}" if given else path
        answer = self._send(method, target, body, headers or {}, timeout_s or self._timeout_s)
        try:
            if answer.status >= 400:
                raise error_from_response(answer.status, answer.read())
            yield answer
        finally:
            if not answer.isclosed():
                self._drop()

    def close(self) -> None:
        """Close this thread's connection."""
        self._drop()

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> http.client.HTTPResponse:
        # What two requests ask for is two things, even when they are equal.
        own = {"Idempotency-Key": new_id()} if method == "POST" else {}
        delays = iter(_RETRY_DELAYS_S if method in _IDEMPOTENT else ())
        while True:
            try:
                connection = self._connection(timeout_s)
                connection.request(method, target, body=body, headers=self._headers | own | dict(headers))
                return connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if isinstance(error, TimeoutError):
                    raise DeadlineExceeded(f"The engine did not answer {method} within {timeout_s:g} s.") from error
                delay_s = next(delays, None)
                if delay_s is None:
                    raise self._broken(error) from error
                time.sleep(delay_s)
            except BaseException:
                self._drop()  # an interrupt between request and answer leaves the connection unusable
                raise

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """This thread's connection, a new one when there is none or the engine has closed it meanwhile."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None and connection.sock is not None and _is_readable(connection.sock):
            self._drop()
            connection = None
        if connection is None:
            url = urlsplit(self._find_url())
            self._local.url = url.geturl()
            cls = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            connection = cls(url.hostname or "127.0.0.1", url.port, timeout=timeout_s)
            self._local.connection = connection
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return connection

    def _drop(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _broken(self, error: BaseException) -> EngineError:
        url = getattr(self._local, "url", "its address")
        if isinstance(error, ConnectionRefusedError):
            return EngineUnreachable(f"No engine answers at {url}. Start one with: mle up --detach")
        return EngineUnreachable(f"The connection to the engine at {url} broke: {error or type(error).__name__}")


def _is_readable(sock: Any) -> bool:
    """Whether bytes (or the end) wait on an idle connection: then the engine has closed it."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _lower(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.getheaders()}
