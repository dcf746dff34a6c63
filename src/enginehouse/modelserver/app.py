"""The model server's process: load, test, then answer frames until the engine hangs up.

Started by `__main__`; the socket is one end of a pair that the engine made, so that its end of life is the engine's.

One thread does everything. While a call runs, what arrives waits in the sockets; the next look takes all of it, which
is the whole of the batching policy. Decoding, the call and encoding hold Python's lock anyway. Measured on two
cores, with the calls in a second thread a linear model answered as many requests and a forest 15 % fewer.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import time
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginehouse.modelserver import adapters
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.batcher import EXPLANATIONS, Answerer, BatchAnswer, Batcher
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
        self._window = Window(time.perf_counter, on_close=journal.closed)
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
                    seen_s = time.perf_counter()
                    self._wait_for_company(requests)
                    self._journal.observe("queue", time.perf_counter() - seen_s, len(requests))
                    requests = self._answer(requests)
                if self._to_explain:
                    self._explain()
                now_s = time.monotonic()
                if now_s - looked_after_s >= _LOOK_AFTER_S:
                    self._lent.look_after(now_s)
                    looked_after_s = now_s

    def _gather(self, events: list[tuple[int, int]]) -> list[tuple[int | Lent, bytes]]:
        """The requests that are here."""
        requests: list[tuple[int | Lent, bytes]] = []
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

    def _wait_for_company(self, requests: list[tuple[int | Lent, bytes]]) -> None:
        """Add what arrives while the window is open."""
        window = self._window
        window.open()
        while window.is_open(len(requests)):
            if events := self._poll.poll(0):
                requests += self._gather(events)
            else:
                os.sched_yield()  # whoever sends the next request may need this processor

    def _answer(self, requests: list[tuple[int | Lent, bytes]]) -> list[tuple[int | Lent, bytes]]:
        """Answer all; what came meanwhile on the connections that were answered."""
        following: list[tuple[int | Lent, bytes]] = []
        n_in_time = max(_LEAST_QUEUE, int(self._max_wait_s / self._request_s)) if self._request_s else len(requests)
        if len(requests) > n_in_time:
            following += self._refuse(requests[n_in_time:])
            requests = requests[:n_in_time]
        started_s = time.perf_counter()
        answered = bytearray(len(requests))
        self._journal.words[BUSY_SINCE] = time.monotonic_ns()
        for answers in self._batcher.answer([body for _, body in requests]):
            now_s = time.time()
            frames = []
            for position, status, body in answers:
                asker = requests[position][0]
                answered[position] = 1
                if isinstance(asker, int):
                    frames.append(pack(asker, status, body))
                else:
                    following += self._lent.answer(asker, status, body, now_s)
            if frames:
                self._connection.sendall(b"".join(frames))
            if time.perf_counter() - started_s > self._max_wait_s:  # they take longer than those before
                following += self._refuse([each for each, done in zip(requests, answered, strict=True) if not done])
                break
        self._journal.words[BUSY_SINCE] = 0
        took_s = time.perf_counter() - started_s
        request_s = took_s / max(1, sum(answered))
        self._request_s += (_MEMORY if self._request_s else 1.0) * (request_s - self._request_s)
        self._window.answered(len(requests), took_s)
        return following

    def _refuse(self, requests: list[tuple[int | Lent, bytes]]) -> list[tuple[int | Lent, bytes]]:
        """Tell those for whom there is no room; what came meanwhile on their connections waits for the next look."""
        now_s = time.time()
        following: list[tuple[int | Lent, bytes]] = []
        for asker, _ in requests:
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
        bodies = [body for _, body, _ in requests]
        parts = [_unexplained(len(bodies))] if self._explanations is None else self._explanations.answer(bodies)
        for answers in parts:
            frames = [pack(requests[position][0], status, body) for position, status, body in answers]
            self._connection.sendall(b"".join(frames))
        self._journal.words[BUSY_SINCE] = 0


def _unexplained(n_requests: int) -> list[BatchAnswer]:
    """The answers of a model server that has nothing to explain with; the engine asks none such."""
    body = dumps(MalformedRequest("The version has no explanation config.").body())
    return [BatchAnswer(position, 400, body) for position in range(n_requests)]
