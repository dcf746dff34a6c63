"""The HTTP side of online prediction, as bare ASGI: no framework between the socket and the model server.

    POST /v1/projects/P/models/M:predict                  the model's default version
    POST /v1/projects/P/models/M/versions/V:predict
    POST …:explain                                        the same with explanations for predictions

Comes in: a request of uvicorn; goes out: the model server's answer as it is (which statuses it uses is told in
`enginehouse.modelserver.errors`), or the engine's own error in google.rpc.Status shape. Composed by `main`, before
the other APIs: whatever ends in `:predict` or `:explain` belongs here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NoReturn

import orjson

from enginehouse.core.errors import (
    DeadlineExceeded,
    EngineError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from enginehouse.modelserver.frames import EXPLAIN, TENSORS
from enginehouse.serving.lending import Lender, Telling
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.traffic import Traffic, Verdict
from enginehouse.serving.types import Answer, ServedVersion, VersionDirectory

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SUFFIXES = (":predict", ":explain")
_FAILED = b'{"error"'


Record = Callable[[str, float, str, str, bytes, bytes], None]
LogAccess = Callable[[str, str, str, int, int, int, float], None]


def _keep_nothing(*_: object) -> None:
    pass


class PayloadTooLarge(InvalidArgument):
    """The body is longer than the setting `max_body_bytes` allows."""

    http_status = 413


class PredictApp:
    """ASGI application for predictions.

    Args:
        directory: knows the versions; asked once per path, until `forget`.
        pool: knows their servers.
        max_body_bytes: longer request bodies are refused.
        record: keeps a sample of the requests; see `recording.RequestRecorder.record`.
        log_access: tells of a request; see `logs.PredictionLogs.access`.
        listen_to: called with a lender whose model server will tell of requests; see `hearing.Hearing.listen_to`.
        roll_back: told (project, model, verdict) when a version that gets a share of a model's requests is worse than
            the default one.
    """

    def __init__(
        self,
        directory: VersionDirectory,
        pool: ServerPool,
        *,
        max_body_bytes: int,
        record: Record = _keep_nothing,
        log_access: LogAccess = _keep_nothing,
        listen_to: Callable[[Lender], None] = _keep_nothing,
        roll_back: Callable[[str, str, Verdict], None] = lambda project, model_id, verdict: None,
    ) -> None:
        self._directory = directory
        self._pool = pool
        self._max_body_bytes = max_body_bytes
        self._record = record
        self._log_access = log_access
        self._listen_to = listen_to
        self._roll_back = roll_back
        self._versions: dict[str, ServedVersion] = {}
        self._traffic: dict[str, tuple[str, str, Traffic]] = {}
        self._paths: dict[tuple[str, str], set[str]] = {}

    @staticmethod
    def matches(scope: Scope) -> bool:
        """Whether a request is this application's."""
        return bool(scope["type"] == "http" and scope["path"].endswith(SUFFIXES))

    def forget(self, project: str, model_id: str) -> None:
        """Ask again for the versions of a model: it was changed, or one of its versions was."""
        for path in self._paths.pop((project, model_id), ()):
            self._traffic.pop(path, None)
            version = self._versions.pop(path, None)
            if version is not None:
                self._pool.recall(version.uid)

    def version(self, project: str, model_id: str, version_id: str | None) -> ServedVersion:
        """The version of that name, the default one for None; errors as of `VersionDirectory.resolve`."""
        path = _path(project, model_id, version_id)
        return self._versions.get(path) or self._resolve(path)

    def takes_tensors(self, project: str, model_id: str, version_id: str | None) -> bool:
        """Whether a request to the version may be tensors (`modelserver.frames`): nobody else has to read it."""
        path, version = _path(project, model_id, version_id), self.version(project, model_id, version_id)
        return version.sample is None and version.container is None and path not in self._traffic

    async def predict(
        self, project: str, model_id: str, version_id: str | None, request: bytes
    ) -> tuple[ServedVersion, Answer]:
        """The answer to a body that came by another protocol, and who gave it: shared out and sampled as any other.

        Raises:
            EngineError: as of `VersionDirectory.resolve` and `ServerPool.predict`.
        """
        began_s = time.perf_counter()
        version, path = self.version(project, model_id, version_id), _path(project, model_id, version_id)
        try:
            version, answer = await self._predict(path, version, request)
        except EngineError as error:
            self._tell(version, "POST", path, error.http_status, len(request), 0, began_s)
            raise
        self._tell(version, "POST", path, answer.status, len(request), len(answer.body), began_s)
        return version, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = time.perf_counter()
        version, request, failure = None, b"", None
        try:
            version = self._versions.get(scope["path"]) or self._resolve(scope["path"])
            if scope["method"] != "POST":
                _not_found(f"{scope['method']} {scope['path']}")
            request = await self._body(scope, receive)
            if "enginehouse.expired" in scope.get("extensions", ()):
                raise DeadlineExceeded("The model gave no prediction in time.")
            if scope["path"].endswith(":explain"):
                status, body = await self._pool.predict(_explained(version), request, EXPLAIN)
            else:
                is_shared_out = scope["path"] in self._traffic
                version, (status, body) = await self._predict(scope["path"], version, request)
                if not is_shared_out:  # else each request's version is drawn here, so the connection stays here
                    self._lend(scope, version)
        except ClientGone:
            return
        except EngineError as error:
            status, body = _error_answer(error)
        except Exception as error:
            failure = error
            status, body = _error_answer(Internal("Internal error encountered."))
        if version is not None:
            self._tell(version, scope["method"], scope["path"], status, len(request), len(body), began_s)
        await _respond(send, status, body)
        if failure is not None:
            raise failure

    def _tell(
        self, version: ServedVersion, method: str, path: str, status: int, n_in: int, n_out: int, began_s: float
    ) -> None:
        """A line of the access log, if the version has one."""
        if version.logs_access:
            self._log_access(version.uid, method, path, status, n_in, n_out, time.perf_counter() - began_s)

    def _keep(self, version: ServedVersion, request: bytes, status: int, body: bytes) -> None:
        """Keep a request and its answer, if its version is sampled."""
        if (sample := version.sample) is not None and status == 200 and request[:1] != TENSORS:
            name = version.name
            self._record(sample.table, sample.share, name.model_id, name.version_id, request, body)

    async def _predict(self, path: str, version: ServedVersion, request: bytes) -> tuple[ServedVersion, Answer]:
        if path in self._traffic:
            return await self._predict_split(path, request)
        answer = await self._pool.predict(version, request)
        self._keep(version, request, *answer)
        return version, answer

    async def _predict_split(self, path: str, request: bytes) -> tuple[ServedVersion, Answer]:
        """One request of a model whose requests are shared out: drawn anew for each, so no connection is lent.

        What another version can't answer for a fault of its own is answered by the base, and counted against it.
        """
        project, model_id, traffic = self._traffic[path]
        split = traffic.split
        version_id = traffic.choose(self._pool.is_ready)
        began_s = time.perf_counter()
        failed = True
        try:
            answer = await self._pool.predict(split.versions[version_id], request)
            failed = answer.status >= 500 or answer.body.startswith(_FAILED)
            self._keep(split.versions[version_id], request, *answer)
            return split.versions[version_id], answer
        except (Internal, Unavailable, DeadlineExceeded):
            if version_id == split.base:
                raise
            base = split.versions[split.base]
            return base, await self._pool.predict(base, request)
        except EngineError:
            failed = False  # too many requests, too large a body: not the version's fault
            raise
        finally:
            verdict = traffic.observe(version_id, failed=failed, seconds=time.perf_counter() - began_s)
            if verdict is not None:
                self._roll_back(project, model_id, verdict)

    def _lend(self, scope: Scope, version: ServedVersion) -> None:
        """Let the model server answer the next request on this connection itself, if it is like this one."""
        lend = scope.get("extensions", {}).get("enginehouse.lend")
        lender = self._pool.lender(version.uid)
        if lend is None or lender is None:
            return
        if version.sample is None and not version.logs_access:
            lend(lender, None)
        else:
            self._listen_to(lender)
            lend(lender, Telling(version, scope["path"]))

    def _resolve(self, path: str) -> ServedVersion:
        match path.rpartition(":")[0].split("/"):
            case ["", "v1", "projects", project, "models", model_id]:
                version_id = None
            case ["", "v1", "projects", project, "models", model_id, "versions", version_id]:
                pass
            case _:
                _not_found(path)
        version = self._directory.resolve(project, model_id, version_id)
        is_shared = version_id is None and path.endswith(":predict")
        traffic = self._directory.traffic(project, model_id) if is_shared else None
        if traffic is not None:
            self._traffic[path] = (project, model_id, traffic)
            for other in traffic.split.versions.values():
                self._pool.wake(other)
        self._versions[path] = version
        self._paths.setdefault((project, model_id), set()).add(path)
        return version

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._max_body_bytes:
                raise self._too_large()
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            return body
        chunks = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunks += message.get("body", b"")
            if len(chunks) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(chunks)
            message = await receive()

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"Request payload size exceeds the limit: {self._max_body_bytes} bytes.")


class ClientGone(Exception):
    """The client hung up before its request was whole; there is nobody to answer."""


def _path(project: str, model_id: str, version_id: str | None) -> str:
    version = "" if version_id is None else f"/versions/{version_id}"
    return f"/v1/projects/{project}/models/{model_id}{version}:predict"


def _explained(version: ServedVersion) -> ServedVersion:
    if not version.explanation:
        raise FailedPrecondition(
            f"The version {version.name.version_id!r} has no explanation config, so it can't explain. Create one "
            "with explanationConfig (--explanation-method).",
            field="name",
        )
    return version


def _not_found(what: str) -> NoReturn:
    raise NotFound(f"The requested URL {what} was not found on this server.")


def _error_answer(error: EngineError) -> Answer:
    return Answer(error.http_status, orjson.dumps(error.to_http_body()))


async def _respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json; charset=UTF-8"), (b"content-length", b"%d" % len(body))]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
