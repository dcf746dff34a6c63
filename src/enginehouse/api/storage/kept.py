"""Answers with small contents, kept as long as nothing in the store changes: files that are read again and again.

`StorageApp` asks for them before it looks for a route; `downloads` offers what may be kept.
"""

from __future__ import annotations

import functools

from starlette.responses import Response
from starlette.types import Scope

from enginehouse.storage.base import ObjectStore

KEEP = "enginehouse.keep"
"""In `scope["extensions"]` of a request whose answer may be kept: a function that takes it."""
_MAX_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 1024
"""About what an answer takes beside its content."""
_Key = tuple[bytes, bytes]


class KeptAnswers:
    """Whole answers to GET requests, by path and query. For the event loop's thread alone.

    Args:
        store: what the answers are of.
        max_bytes: of all of them; when there is more, all are dropped.
    """

    def __init__(self, store: ObjectStore, max_bytes: int = _MAX_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._mark: int | None = None
        self._answers: dict[_Key, Response] = {}
        self._kept_bytes = 0

    def find(self, scope: Scope) -> Response | None:
        """The answer to a request; where there is none, the request is prepared for keeping it."""
        query = scope["query_string"]
        if (
            scope["method"] != "GET"
            or b"alt=media" not in query
            or any(name == b"range" for name, _ in scope["headers"])
        ):
            return None
        mark = self._store.change_mark()
        if mark is None:
            return None
        if mark != self._mark:
            self._drop()
            self._mark = mark
        key = scope["raw_path"], query
        answer = self._answers.get(key)
        if answer is None:
            scope.setdefault("extensions", {})[KEEP] = functools.partial(self._keep, key, mark)
        return answer

    def _keep(self, key: _Key, mark: int, answer: Response) -> None:
        if mark != self._mark:  # what was read may be older than the last change
            return
        self._kept_bytes += len(answer.body) + _HEAD_BYTES
        if self._kept_bytes > self._max_bytes:
            self._drop()
        else:
            self._answers[key] = answer

    def _drop(self) -> None:
        self._answers = {}
        self._kept_bytes = 0
