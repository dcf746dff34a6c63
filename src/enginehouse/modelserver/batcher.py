"""Micro-batching: the requests that wait become one call of the model.

Comes in: the bodies of all requests that arrived while the last call ran; goes out: one answer for each. Nothing
waits for company: a request that finds the model idle runs at once and alone. Called by `app`.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.codecs import dumps, dumps_slowly, jsonable, parse_request
from enginehouse.modelserver.errors import INPUTS_CODE, MODEL_CODE, OUTPUTS_CODE, PredictionError, describe

PREDICTIONS, EXPLANATIONS = "predictions", "explanations"
DEFAULT_MAX_ROWS = 1024
"""A merged call has at most this many rows; a single request may have more and then runs alone."""
_BLAME_S = 0.5
"""For finding the instance that a call fails for."""

Observe = Callable[[str, float, int], None]


class Answerer(Protocol):
    """What gives the answers: an adapter, or an explainer. All is as in `adapters.base.Adapter`."""

    @property
    def takes_arrays(self) -> bool: ...

    def prepare(self, request: Mapping[str, Any]) -> Call: ...

    def run(self, call: Call) -> list[Any]: ...

    def merge(self, calls: Sequence[Call]) -> Call: ...


class BatchAnswer(NamedTuple):
    """The answer to `bodies[position]`: HTTP status and JSON body."""

    position: int
    status: int
    body: bytes


class Batcher:
    """Answers bundles of requests with one adapter.

    Requests are merged when the adapter says that their calls may be (same signature, dtypes and shapes). When a
    merged call fails or does not give one row per instance, each of its requests runs alone, so that a bad one fails
    alone. Belongs to one thread.

    Args:
        max_rows: bound of a merged call.
        key: what the answers are called in the JSON.
        observe: told how long a phase ("decode", "model", "encode") took, and for how many requests.
    """

    def __init__(
        self,
        adapter: Answerer,
        *,
        max_rows: int = DEFAULT_MAX_ROWS,
        key: str = PREDICTIONS,
        observe: Observe = lambda *_: None,
    ) -> None:
        self._adapter = adapter
        self._key = key
        self._max_rows = max_rows
        self._observe = observe

    def answer(self, bodies: Sequence[bytes]) -> Iterator[list[BatchAnswer]]:
        """Yield answers as they are ready, those of one model call together; each index comes exactly once."""
        groups: dict[Hashable, list[tuple[int, Call]]] = {}
        at_once: list[BatchAnswer] = []
        started_s = time.perf_counter()
        for index, body in enumerate(bodies):
            try:
                request = parse_request(body, as_arrays=self._adapter.takes_arrays)
                if not request["instances"]:
                    at_once.append(BatchAnswer(index, 200, dumps({self._key: []})))
                    continue
                call = self._adapter.prepare(request)
            except Exception as error:
                at_once.append(_failure(index, error, INPUTS_CODE))
                continue
            key = ("alone", index) if call.merge_key is None else ("merge", call.merge_key)
            groups.setdefault(key, []).append((index, call))
        self._observe("decode", time.perf_counter() - started_s, len(bodies))
        if at_once:
            yield at_once
        for group in groups.values():
            for part in self._parts(group):
                yield self._run(part)

    def _parts(self, group: list[tuple[int, Call]]) -> Iterator[list[tuple[int, Call]]]:
        part: list[tuple[int, Call]] = []
        n_rows = 0
        for index, call in group:
            if part and n_rows + call.n_rows > self._max_rows:
                yield part
                part, n_rows = [], 0
            part.append((index, call))
            n_rows += call.n_rows
        yield part

    def _run(self, part: list[tuple[int, Call]]) -> list[BatchAnswer]:
        if len(part) > 1:
            merged = self._run_merged(part)
            if merged is not None:
                return merged
        return [self._run_alone(index, call) for index, call in part]

    def _run_alone(self, index: int, call: Call) -> BatchAnswer:
        try:
            rows = self._timed_run(call, 1)
        except (Exception, SystemExit) as error:  # a model's predict may call sys.exit
            if isinstance(error, PredictionError) and error.code != OUTPUTS_CODE:
                error.detail += self._blame(call)
            return _failure(index, error, MODEL_CODE)
        try:
            started_s = time.perf_counter()
            answer = _success(self._key, index, rows)
            self._observe("encode", time.perf_counter() - started_s, 1)
            return answer
        except Exception as error:
            return _failure(index, error, OUTPUTS_CODE)

    def _blame(self, call: Call) -> str:
        """Which instance a failed call fails for, found by halving; "" where that takes too long or has no answer."""
        if call.merge_key is None or not 1 < call.n_rows <= self._max_rows:
            return ""
        start, end = 0, call.n_rows
        give_up_s = time.perf_counter() + _BLAME_S
        while end - start > 1:
            middle = (start + end) // 2
            start, end = (start, middle) if self._fails(call, start, middle) else (middle, end)
            if time.perf_counter() > give_up_s:
                return ""
        return f" (Instance {start}.)" if self._fails(call, start, end) else ""

    def _fails(self, call: Call, start: int, end: int) -> bool:
        arrays = tuple(array[start:end] for array in call.arrays)
        try:
            self._adapter.run(Call(call.signature, arrays, end - start, call.merge_key))
        except (Exception, SystemExit):
            return True
        return False

    def _run_merged(self, part: list[tuple[int, Call]]) -> list[BatchAnswer] | None:
        try:
            call = self._adapter.merge([call for _, call in part])
            rows = self._timed_run(call, len(part))
            if len(rows) != call.n_rows:
                return None
            answers = []
            start = 0
            started_s = time.perf_counter()
            for index, single in part:
                end = start + single.n_rows
                answers.append(_success(self._key, index, rows[start:end]))
                start = end
            self._observe("encode", time.perf_counter() - started_s, len(part))
            return answers
        except (Exception, SystemExit):
            return None

    def _timed_run(self, call: Call, n_requests: int) -> list[Any]:
        started_s = time.perf_counter()
        rows = self._adapter.run(call)
        self._observe("model", time.perf_counter() - started_s, n_requests)
        return rows


def _success(key: str, index: int, rows: list[Any]) -> BatchAnswer:
    try:
        body = dumps({key: rows})
    except (TypeError, ValueError):  # integers beyond 64 bits, half surrogates, objects
        body = dumps_slowly({key: jsonable(rows)})
    return BatchAnswer(index, 200, body)


def _failure(index: int, error: BaseException, code: int) -> BatchAnswer:
    if not isinstance(error, PredictionError):
        traceback.print_exception(error, file=sys.stderr)
        error = PredictionError(f"unknown error: {type(error).__name__}: {describe(error)}")
    if error.code is None:
        error.code = code
    return BatchAnswer(index, error.http_status, dumps(error.body()))
