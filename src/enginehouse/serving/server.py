"""The server of one version: starts its process on demand, and keeps the promise that a crash costs no answer.

Owned by `pool.ServerPool`; belongs to one event loop.

**After a crash** each request that was in flight is a suspect: one of them may have killed the process. They are sent
again one at a time, with nobody else in flight, so that a request that crashes the model takes only itself down. New
requests wait until the suspects are through.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from enginehouse.core.errors import DeadlineExceeded, Internal, ResourceExhausted, Unavailable
from enginehouse.modelserver.frames import PREDICT
from enginehouse.modelserver.journal import BOUNDS_S, EXPLANATION, N_COUNTERS, PREDICTION
from enginehouse.serving.container import ContainerProcess
from enginehouse.serving.lending import Lender
from enginehouse.serving.limits import Limits
from enginehouse.serving.process import ModelProcess, ServerGone
from enginehouse.serving.types import Answer, DeployReport, ModelLoadError, ServedVersion
from enginehouse.serving.usage import cpu_s, memory_bytes

_TRIES_AFTER_KILL = 4
"""A SIGKILL comes from outside (an operator, the kernel short of memory), so it is held against a request only when
it strikes again and again while that request runs alone. Any other death of a process with one request in flight is
that request's."""


class VersionServer:
    """Answers requests of one version: one of its nodes.

    Args:
        make_room: awaited before a process starts.
    """

    def __init__(
        self,
        version: ServedVersion,
        log_path: Path,
        limits: Limits,
        *,
        make_room: Callable[[VersionServer], Awaitable[None]] | None = None,
    ) -> None:
        self.version = version
        self._log_path = log_path
        self._limits = limits
        self._make_room = make_room
        self._loop = asyncio.get_running_loop()
        self._process: ModelProcess | ContainerProcess | None = None
        self._report: DeployReport | None = None
        self._starting: asyncio.Task[ModelProcess | ContainerProcess] | None = None
        self._n_failed_starts = 0
        self._start_again_at = 0.0
        self._start_failure = ""
        self._n_suspects = 0
        self._suspect_turn = asyncio.Lock()
        self._cleared = asyncio.Event()
        self._cleared.set()
        self._closed = False
        self._drained: asyncio.Event | None = None
        self.n_pending = 0
        self._pending_bytes = 0
        self._used_at = self._loop.time()
        self._earlier_counters = [0] * N_COUNTERS

    @property
    def counters(self) -> list[int]:
        """What the version's model servers counted in all their lives, by word of `modelserver.journal`."""
        current = self._process.counters if self._process is not None else [0] * N_COUNTERS
        return [sum(pair) for pair in zip(self._earlier_counters, current, strict=True)]

    @property
    def n_answered(self) -> int:
        """Requests that were taken so far, in all lives."""
        counters = self.counters
        firsts = PREDICTION["decode"], EXPLANATION["decode"]
        return sum(sum(counters[first : first + len(BOUNDS_S) + 1]) for first in firsts)

    @property
    def pid(self) -> int | None:
        """The process id of the ready model server, if there is one."""
        return self._process.pid if self._process is not None and not self._process.closed else None

    @property
    def lender(self) -> Lender | None:
        """Who lends client connections to the ready model server, if there is one."""
        return self._process.lender if self._process is not None and not self._n_suspects else None

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one is in flight or the server starts."""
        if self.n_pending or self._starting is not None:
            return 0.0
        idle_s = self._loop.time() - self._used_at
        return idle_s if self.lender is None else min(idle_s, self.lender.unused_s)

    @property
    def unused_s(self) -> float:
        """Seconds since the last request, on whatever way it came; those in flight are as old as their arrival."""
        unused_s = self._loop.time() - self._used_at
        return unused_s if self.lender is None else min(unused_s, self.lender.unused_s)

    @property
    def is_starting(self) -> bool:
        """Whether a process is on its way."""
        return self._starting is not None

    @property
    def cpu_s(self) -> float:
        """Processor time of the process that is ready; 0 without one."""
        return 0.0 if self.pid is None else cpu_s(self.pid)

    @property
    def memory_bytes(self) -> int:
        """Memory of the process that is ready; 0 without one."""
        return 0 if self.pid is None else memory_bytes(self.pid)

    async def ensure(self) -> None:
        """Have a ready process, unless one failed a moment ago. Raises ModelLoadError, Unavailable."""
        await self._ready_process()

    async def deploy(self) -> DeployReport:
        """Load and test the model now, if that is not done already.

        Raises:
            ModelLoadError: in the original's words.
        """
        self._start_again_at = 0.0
        await self._ready_process()
        assert self._report is not None
        return self._report

    async def predict(self, body: bytes, wish: int = PREDICT) -> Answer:
        """The model's answer to one request body; `wish` as in `modelserver.frames`.

        Raises:
            ResourceExhausted: too many requests in flight.
            DeadlineExceeded: no answer in time.
            Unavailable: the model server cannot be started.
            Internal: the model server crashed on this very request.
        """
        limits = self._limits
        if self.n_pending >= limits.max_pending or self._pending_bytes + len(body) > limits.max_pending_bytes:
            raise ResourceExhausted(
                f"Too many pending prediction requests for {self.version.name}; send fewer at a time."
            )
        self.n_pending += 1
        self._pending_bytes += len(body)
        try:
            async with asyncio.timeout(limits.predict_timeout_s):
                return await self._predict(body, wish)
        except TimeoutError:
            await self._kill_if_stuck()
            raise DeadlineExceeded(
                f"The model gave no prediction within {limits.predict_timeout_s:g} seconds."
            ) from None
        finally:
            self.n_pending -= 1
            self._pending_bytes -= len(body)
            self._used_at = self._loop.time()
            if self._drained is not None and not self.n_pending:
                self._drained.set()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """End for good: first wait up to `drain_s` for requests in flight; whatever is left gets Unavailable."""
        if self.n_pending and drain_s:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), drain_s)
        if drain_s and self.lender is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lender.recall_all(), drain_s)
        self._closed = True
        await self.stop()

    async def stop(self) -> None:
        """End the process. A later request starts it again, and so does one in flight."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        process = self._process
        self._earlier_counters, self._process = self.counters, None
        if process is not None:
            await process.kill()

    async def _predict(self, body: bytes, wish: int) -> Answer:
        while True:
            process = self._process
            if self._n_suspects:
                await self._cleared.wait()
            elif process is None or process.closed:
                try:
                    await self._ready_process()
                except ModelLoadError as error:
                    raise Unavailable(f"The model server could not be started: {error.message}") from None
            else:
                try:
                    return await process.send(body, wish)
                except ServerGone:
                    return await self._predict_alone(body, wish)

    async def _predict_alone(self, body: bytes, wish: int) -> Answer:
        self._n_suspects += 1
        self._cleared.clear()
        returncode = None
        try:
            async with self._suspect_turn:
                for _ in range(_TRIES_AFTER_KILL):
                    try:
                        process = await self._ready_process()
                        return await process.send(body, wish)
                    except ServerGone:
                        returncode = await process.wait_exit()
                        if returncode != -signal.SIGKILL:
                            break
                    except ModelLoadError as error:
                        raise Unavailable(f"The model server could not be started: {error.message}") from None
                raise Internal(f"The model server crashed on this request: it {ServerGone(returncode)}.")
        finally:
            self._n_suspects -= 1
            if not self._n_suspects:
                self._cleared.set()

    async def _ready_process(self) -> ModelProcess | ContainerProcess:
        """The ready process; starts one if need be. Callers share the start; it outlives their cancellation."""
        if self._process is not None and not self._process.closed:
            return self._process
        if self._closed:
            raise Unavailable("The model server is shutting down.")
        if self._starting is None:
            if self._loop.time() < self._start_again_at:
                raise ModelLoadError(self._start_failure)
            self._starting = self._loop.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise Unavailable("The model server is shutting down.") from None
            raise

    async def _start(self) -> ModelProcess | ContainerProcess:
        if self._make_room is not None:
            await self._make_room(self)
        kind = ModelProcess if self.version.container is None else ContainerProcess
        process = await kind.start(self.version, self._log_path, self._limits)
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                self._report = await process.ready()
        except TimeoutError:
            await process.kill()
            raise ModelLoadError(
                "Error: model server never became ready. Please validate that your model file or container "
                f"configuration are valid. (It was given {self._limits.load_timeout_s:g} seconds.)"
            ) from None
        except BaseException:
            await process.kill()
            raise
        self._earlier_counters, self._process = self.counters, process
        self._used_at = self._loop.time()
        return process

    def _start_ended(self, task: asyncio.Task[ModelProcess | ContainerProcess]) -> None:
        self._starting = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._n_failed_starts = 0
        else:
            self._n_failed_starts += 1
            self._start_again_at = self._loop.time() + min(2.0**self._n_failed_starts, 30.0)
            self._start_failure = error.message if isinstance(error, ModelLoadError) else str(error)

    async def _kill_if_stuck(self) -> None:
        """End a process that hangs in a call: it has said nothing for half the time that requests may take."""
        process = self._process
        silent_s = 0.0 if process is None else self._loop.time() - process.heard_at
        if process is not None and not process.closed and silent_s >= self._limits.predict_timeout_s / 2:
            await process.kill(timeout_s=self._limits.predict_timeout_s)

    async def kill_if_over_time(self) -> None:
        """End a process whose model has been in one call for longer than a request may take."""
        lender, timeout_s = self.lender, self._limits.predict_timeout_s
        if lender is not None and lender.busy_s > timeout_s and self._process is not None:
            await self._process.kill(timeout_s=timeout_s)
