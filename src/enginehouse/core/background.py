"""A thread that does the same pass again and again: the frame of every reconciler."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Background:
    """Calls a pass until it is stopped, at once when it is woken, else after a pause.

    Args:
        name: of the thread.
        run_pass: does what there is to do and returns the seconds to wait before the next pass. What it raises is
            logged, and the next pass comes after `retry_s`.
        retry_s: seconds to wait after a pass that failed.
    """

    def __init__(self, name: str, run_pass: Callable[[], float], *, retry_s: float) -> None:
        self._run_pass = run_pass
        self._retry_s = retry_s
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the pass that is under way; returns when it has ended. Harmless when never started."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Something changed: do the next pass now."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                pause_s = self._run_pass()
            except Exception:
                _log.exception("the pass of %s failed; trying again", self._thread.name)
                pause_s = self._retry_s
            self._woken.wait(pause_s)
