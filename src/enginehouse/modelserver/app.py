"""The model server's process: load, test, then answer frames until the engine hangs up.

Started by `__main__`; the socket is one end of a pair that the engine made, so that its end of life is the engine's.

One thread does everything. While a call runs, what arrives waits in the sockets; the next look takes all of it, and
what arrives while that is decoded comes along. Decoding, the call and encoding hold Python's lock anyway. Measured on
two cores, with the calls in a second thread a linear model answered as many requests and a forest 15 % fewer.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginehouse.modelserver import adapters
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.batcher import EXPLANATIONS, Answerer, Batch, BatchAnswer, Batcher
from enginehouse.modelserver.codecs import dumps
from enginehouse.modelserver.errors import MalformedRequest, ModelLoadError, describe
from enginehouse.modelserver.frames import CONTROL_ID, EXPLAIN, FrameReader, pack
from enginehouse.modelserver.journal import BUSY_SINCE, EXPLANATION, Journal
from enginehouse.modelserver.lent import Lent, LentConnections
from enginehouse.modelserver.window import Window

if TYPE_CHECKING:
    from enginehouse.modelserver.worker.link import Outside

WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
_RECEIVE_BYTES = 256 * 1024
_LOOK_AFTER_S = 1.0
_LEAST_QUEUE = 16
"""So many requests may always wait."""
_MEMORY = 0.2
"""Weight of the last batch in the average."""
_TOO_MANY = dumps(
    {
        "error": {
            "code": 429,
            "message": "Too many pending prediction requests; send fewer at a time.",
            "status": "RESOURCE_EXHAUSTED",
        }
    }
)

Request = tuple[int | Lent, bytes]
"""Who asks: the id of a frame, or a lent connection; and the body."""


def run(
    connection: socket.socket,
    framework: str,
    directory: Path,
    *,
    max_rows: int,
    max_wait_s: float,
    started_s: float,
    channel: socket.socket,
    journal_fd: int,
    explanation: str = "",
    outside: Outside | None = None,
) -> int:
    """Load the model, tell the engine how it went, and serve.

    Args:
        connection: stream socket to the engine, blocking.
        framework: "TENSORFLOW", "SCIKIT_LEARN" or "XGBOOST".
        directory: the model's files.
        max_rows: bound of a merged call.
        max_wait_s: see `Service`.
        started_s: `time.time()` when the engine started this process.
        channel: SEQPACKET socket on which the engine lends connections.
        journal_fd: the memory shared with the engine.
        explanation: the version's explanationConfig as JSON; "" for none.
        outside: the old runtime that the model is loaded in; None for this process.

    Returns:
        The exit code: 0 after serving, 1 when the model could not be loaded.
    """
    try:
        adapter, report = _load(framework, directory, outside)
        explainer = _explainer(adapter, directory, explanation) if explanation else None
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        if not isinstance(error, ModelLoadError):
            words = f"Unexpected error when loading the model: {describe(error)} ({type(error).__name__})"
            error = ModelLoadError(words)
        connection.sendall(pack(CONTROL_ID, 400, dumps({"message": str(error)})))
        return 1
    gc.collect()
    gc.freeze()  # the model is not garbage: later collections need not walk it
    report["lends"] = True
    report["loadS"] = time.time() - started_s
    connection.sendall(pack(CONTROL_ID, 200, dumps(report)))
    journal = Journal(journal_fd)
    batcher = Batcher(adapter, max_rows=max_rows, observe=journal.observe)
    explanations = None
    if explainer is not None:
        observe = partial(journal.observe, phases=EXPLANATION)
        explanations = Batcher(explainer, max_rows=max_rows, key=EXPLANATIONS, observe=observe)
    Service(connection, batcher, channel, journal, explanations, max_wait_s=max_wait_s).run()
    return 0


def _explainer(adapter: Adapter, directory: Path, config: str) -> Answerer:
    from enginehouse.modelserver.explain.explainer import Explainer  # memory that most versions need not spend

    return Explainer.load(adapter, directory, config)


def _load(framework: str, directory: Path, outside: Outside | None) -> tuple[Adapter, dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        adapter = adapters.load(framework, directory, outside)
    texts = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught if _concerns_user(w.category)))
    for text in texts:
        print(text, flush=True)
    try:
        self_test = adapter.self_test()
    except ModelLoadError as error:
        raise ModelLoadError(" ".join([error.detail, *texts])) from error
    report = {"selfTest": self_test, "warnings": texts, "signatures": adapter.signatures()}
    if (directory / WARM_UP_FILE).is_file():
        from enginehouse.modelserver.adapters.signatures import SignatureAdapter
        from enginehouse.modelserver.warmup import warm_up

        if isinstance(adapter, SignatureAdapter):
            n_run, told = warm_up(adapter, directory / WARM_UP_FILE)
            print(f"{n_run} warm-up requests were run.", *told, sep="\n", flush=True)
            texts += told
    return adapter, report


def _concerns_user(category: type[Warning]) -> bool:
    return not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning))


class Service:
    """Answers what comes, on the engine's frames and on lent connections, until the engine hangs up.

    Args:
        connection: the engine's frames, blocking.
        channel: where connections are lent, see `lent`.
        journal: the memory shared with the engine.
        explanations: what explains; None where the version has no explanationConfig.
        max_wait_s: requests that would wait for longer, as far as can be told, are refused with 429.
    """

    def __init__(
        self,
        connection: socket.socket,
        batcher: Batcher,
        channel: socket.socket,
        journal: Journal,
        explanations: Batcher | None = None,
        *,
        max_wait_s: float,
    ) -> None:
        self._connection = connection
        self._batcher = batcher
        self._explanations = explanations
        self._to_explain: list[tuple[int, bytes, float]] = []
        self._channel = channel
        self._journal = journal
        self._reader = FrameReader()
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._poll = select.epoll()
        self._poll.register(connection, select.EPOLLIN)
        self._lent = LentConnections(channel, journal, self._poll)
        self._window = Window(time.perf_counter, max_rows=batcher.max_rows, on_close=journal.closed)
        self._max_wait_s = max_wait_s
        self._request_s = 0.0
        """What one request took lately."""
        self._over = False

    def run(self) -> None:
        """Serve until the engine hangs up."""
        looked_after_s = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not self._over:
                requests = self._gather(self._poll.poll(_LOOK_AFTER_S))
                while requests:
                    requests = self._serve(requests)
                if self._to_explain:
                    self._explain()
                now_s = time.monotonic()
                if now_s - looked_after_s >= _LOOK_AFTER_S:
                    self._lent.look_after(now_s)
                    looked_after_s = now_s

    def _gather(self, events: list[tuple[int, int]]) -> list[Request]:
        """The requests that are here."""
        requests: list[Request] = []
        for fd, event in events:
            if fd == self._connection.fileno():
                size_bytes = self._connection.recv_into(self._buffer)
                self._over = not size_bytes
                frames = self._reader.feed(bytes(memoryview(self._buffer)[:size_bytes]))
                for request_id, wish, payload in frames:
                    if wish == EXPLAIN:
                        self._to_explain.append((request_id, payload, time.perf_counter()))
                    else:
                        requests.append((request_id, payload))
            elif fd == self._channel.fileno():
                self._lent.receive()
            else:
                requests += self._lent.take(fd, event)
        return requests

    def _serve(self, requests: list[Request]) -> list[Request]:
        """Answer these and what arrives while the window is open; what follows on the connections."""
        opened_s = time.perf_counter()
        self._journal.words[BUSY_SINCE] = time.monotonic_ns()
        room = max(_LEAST_QUEUE, int(self._max_wait_s / self._request_s)) if self._request_s else sys.maxsize
        window, batch = self._window, self._batcher.open()
        window.open()
        following = self._take_in(requests, batch, room)
        while window.is_open(batch):
            if events := self._poll.poll(0):
                following += self._take_in(self._gather(events), batch, room)
            else:
                os.sched_yield()  # whoever sends the next request may need this processor
        waited_s = time.perf_counter() - opened_s - batch.decode_s
        self._journal.observe("queue", waited_s, batch.n_requests)
        following += self._answer(batch)
        self._journal.words[BUSY_SINCE] = 0
        return following

    def _take_in(self, requests: list[Request], batch: Batch, room: int) -> list[Request]:
        """Add requests to a batch, and refuse those for whom there is no room; what follows on these."""
        n_welcome = room - batch.n_requests
        if len(requests) <= n_welcome:
            batch.add(requests)
            return []
        batch.add(requests[:n_welcome])
        return self._refuse([asker for asker, _ in requests[n_welcome:]])

    def _answer(self, batch: Batch) -> list[Request]:
        """Answer a batch; what came meanwhile on the connections that were answered."""
        following: list[Request] = []
        spent: dict[str, float] = {}
        done: list[BatchAnswer] = []
        started_s = before_s = time.perf_counter()
        for signature, answers in self._batcher.answer(batch, self._window.usual_s):
            now_s = time.time()
            frames = []
            for asker, status, body in answers:
                if isinstance(asker, int):
                    frames.append(pack(asker, status, body))
                else:
                    following += self._lent.answer(asker, status, body, now_s)
            if frames:
                self._connection.sendall(b"".join(frames))
            done += answers
            after_s = time.perf_counter()
            if signature is not None:
                spent[signature] = spent.get(signature, 0.0) + after_s - before_s
            before_s = after_s
            if after_s - started_s > self._max_wait_s:  # they take longer than those before
                answered = {answer.asker for answer in done}
                following += self._refuse([asker for asker in batch.askers() if asker not in answered])
                break
        for signature, seconds in spent.items():
            self._window.answered(signature, batch.sizes[signature].n_requests, seconds)
        request_s = (batch.decode_s + before_s - started_s) / max(1, len(done))
        self._request_s += (_MEMORY if self._request_s else 1.0) * (request_s - self._request_s)
        return following

    def _refuse(self, askers: list[int | Lent]) -> list[Request]:
        """Tell those for whom there is no room; what came meanwhile on their connections waits for the next look."""
        now_s = time.time()
        following: list[Request] = []
        for asker in askers:
            if isinstance(asker, int):
                self._connection.sendall(pack(asker, 429, _TOO_MANY))
            else:
                following += self._lent.answer(asker, 429, _TOO_MANY, now_s)
        return following

    def _explain(self) -> None:
        """Answer the requests for explanations that are here; predictions had their turn before."""
        requests, self._to_explain = self._to_explain, []
        self._journal.words[BUSY_SINCE] = time.monotonic_ns()
        for _, _, came_s in requests:
            self._journal.observe("queue", time.perf_counter() - came_s, 1, phases=EXPLANATION)
        for answers in self._explained([(request_id, body) for request_id, body, _ in requests]):
            self._connection.sendall(b"".join(pack(*answer) for answer in answers))
        self._journal.words[BUSY_SINCE] = 0

    def _explained(self, requests: list[tuple[int, bytes]]) -> Iterator[list[BatchAnswer]]:
        if self._explanations is None:  # the engine asks for none then
            refusal = dumps(MalformedRequest("The version has no explanation config.").body())
            yield [BatchAnswer(request_id, 400, refusal) for request_id, _ in requests]
        else:
            for _, answers in self._explanations.answer(self._explanations.open(requests)):
                yield answers
