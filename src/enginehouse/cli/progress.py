"""How far a transfer is: a bar with bytes and rate on a terminal, a line per file elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginehouse.cli.invocation import Invocation
from enginehouse.core.units import format_elapsed, format_size

if TYPE_CHECKING:
    from enginehouse.sdk.transfer import Copy


class Progress:
    """Shows the transfer of some files on stderr, from `with` to the end of its block.

    `on_bytes` may be called from any thread, `on_done` from the one that opened the block.

    Args:
        copies: what is to be transferred; None when it is not known how much (stdin).
        title: word before the bar: "Copying".
    """

    def __init__(self, invocation: Invocation, copies: Sequence[Copy] | None, *, title: str = "Copying") -> None:
        self._invocation = invocation
        self._files = None if copies is None else len(copies)
        self._total = None if copies is None else sum(copy.size_bytes for copy in copies)
        self._title = title
        self._lock = threading.Lock()
        self._moved = 0
        self._done = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        import time

        self._started = time.monotonic()
        if sys.stderr.isatty() and not self._invocation.quiet:
            self._bar = _bar()
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self

    def on_bytes(self, count: int) -> None:
        with self._lock:
            self._moved += count
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def on_done(self, copy: Copy) -> None:
        self._done += 1
        line = f"Copied {copy.source_text} to {copy.target}"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            self._invocation.say(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import time

        if self._bar is not None:
            self._bar.stop()
        if kind is None and self._files is not None:
            elapsed_s = time.monotonic() - self._started
            rate = f", {format_size(self._moved / elapsed_s)}/s" if self._moved > 1024 * 1024 else ""
            self._invocation.say(
                f"Completed files {self._done}/{self._files} | {format_size(self._moved)} | "
                f"{format_elapsed(elapsed_s)}{rate}"
            )


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
