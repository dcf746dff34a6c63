"""Micro-batching: the requests that wait become one call of the model.

Comes in: the bodies of requests, bundle by bundle as they arrive; goes out: one answer for each. How long a batch
takes more in is `window`'s to say. Called by `app`.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
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
    """The answer for `asker`: HTTP status and JSON body."""

    asker: Any
    status: int
    body: bytes


class Size:
    """How much of one signature there is in a batch."""

    __slots__ = ("n_requests", "n_rows")

    def __init__(self, n_requests: int = 0, n_rows: int = 0) -> None:
        self.n_requests = n_requests
        self.n_rows = n_rows


class Batch:
    """The requests that are answered together, decoded as they come. Made by `Batcher.open`.

    Attributes:
        n_requests: of all kinds.
        sizes: by signature, of the requests that are to be run.
        groups: the decoded requests with their askers, by what may be one call.
        at_once: the answers to those that need no call.
        decode_s: what decoding has taken.
    """

    __slots__ = ("_adapter", "_key", "at_once", "decode_s", "groups", "n_requests", "sizes")

    def __init__(self, adapter: Answerer, key: str) -> None:
        self.sizes: dict[str, Size] = {}
        self.groups: dict[Hashable, list[tuple[Any, Call]]] = {}
        self.at_once: list[BatchAnswer] = []
        self.decode_s = 0.0
        self._adapter = adapter
        self._key = key
        self.n_requests = 0

    def add(self, requests: Iterable[tuple[Any, bytes]]) -> None:
        """Take in requests: who asks, given back with the answer as it is, and the body."""
        started_s = time.perf_counter()
        adapter, groups, sizes = self._adapter, self.groups, self.sizes
        for asker, body in requests:
            self.n_requests += 1
            try:
                request = parse_request(body, as_arrays=adapter.takes_arrays)
                if not request["instances"]:
                    self.at_once.append(BatchAnswer(asker, 200, dumps({self._key: []})))
                    continue
                call = adapter.prepare(request)
            except Exception as error:
                self.at_once.append(_failure(asker, error, INPUTS_CODE))
                continue
            key = ("alone", self.n_requests) if call.merge_key is None else ("merge", call.merge_key)
            group = groups.get(key)
            if group is None:
                group = groups[key] = []
            group.append((asker, call))
            size = sizes.get(call.signature)
            if size is None:
                size = sizes[call.signature] = Size()
            size.n_requests += 1
            size.n_rows += call.n_rows
        self.decode_s += time.perf_counter() - started_s

    def askers(self) -> Iterator[Any]:
        """Who waits for a call."""
        return (asker for group in self.groups.values() for asker, _ in group)


class Batcher:
    """Answers batches of requests with one adapter.

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
        self.max_rows = max_rows
        self._observe = observe

    def open(self, requests: Iterable[tuple[Any, bytes]] = ()) -> Batch:
        """A new batch, of these requests at first."""
        batch = Batch(self._adapter, self._key)
        batch.add(requests)
        return batch

    def answer(
        self, batch: Batch, usual_s: Callable[[str], float] = lambda _: 0.0
    ) -> Iterator[tuple[str | None, list[BatchAnswer]]]:
        """Yield answers as they are ready, one for each request: those of a call, with its signature.

        First, with None, come those that need no call.

        Args:
            usual_s: what a signature's calls usually take; the quick ones come first.
        """
        self._observe("decode", batch.decode_s, batch.n_requests)
        if batch.at_once:
            yield None, batch.at_once
        for group in sorted(batch.groups.values(), key=lambda group: usual_s(group[0][1].signature)):
            for part in self._parts(group):
                yield part[0][1].signature, self._run(part)

    def _parts(self, group: list[tuple[Any, Call]]) -> Iterator[list[tuple[Any, Call]]]:
        part: list[tuple[Any, Call]] = []
        n_rows = 0
        for asker, call in group:
            if part and n_rows + call.n_rows > self.max_rows:
                yield part
                part, n_rows = [], 0
            part.append((asker, call))
            n_rows += call.n_rows
        yield part

    def _run(self, part: list[tuple[Any, Call]]) -> list[BatchAnswer]:
        if len(part) > 1:
            merged = self._run_merged(part)
            if merged is not None:
                return merged
        return [self._run_alone(asker, call) for asker, call in part]

    def _run_alone(self, asker: Any, call: Call) -> BatchAnswer:
        try:
            rows = self._timed_run(call, 1)
        except (Exception, SystemExit) as error:  # a model's predict may call sys.exit
            if isinstance(error, PredictionError) and error.code != OUTPUTS_CODE:
                error.detail += self._blame(call)
            return _failure(asker, error, MODEL_CODE)
        try:
            started_s = time.perf_counter()
            answer = _success(self._key, asker, rows)
            self._observe("encode", time.perf_counter() - started_s, 1)
            return answer
        except Exception as error:
            return _failure(asker, error, OUTPUTS_CODE)

    def _blame(self, call: Call) -> str:
        """Which instance a failed call fails for, found by halving; "" where that takes too long or has no answer."""
        if call.merge_key is None or not 1 < call.n_rows <= self.max_rows:
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

    def _run_merged(self, part: list[tuple[Any, Call]]) -> list[BatchAnswer] | None:
        try:
            call = self._adapter.merge([call for _, call in part])
            rows = self._timed_run(call, len(part))
            if len(rows) != call.n_rows:
                return None
            answers = []
            start = 0
            started_s = time.perf_counter()
            for asker, single in part:
                end = start + single.n_rows
                answers.append(_success(self._key, asker, rows[start:end]))
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


def _success(key: str, asker: Any, rows: list[Any]) -> BatchAnswer:
    try:
        body = dumps({key: rows})
    except (TypeError, ValueError):  # integers beyond 64 bits, half surrogates, objects
        body = dumps_slowly({key: jsonable(rows)})
    return BatchAnswer(asker, 200, body)


def _failure(asker: Any, error: BaseException, code: int) -> BatchAnswer:
    if not isinstance(error, PredictionError):
        traceback.print_exception(error, file=sys.stderr)
        error = PredictionError(f"unknown error: {type(error).__name__}: {describe(error)}")
    if error.code is None:
        error.code = code
    return BatchAnswer(asker, error.http_status, dumps(error.body()))
