"""The processes of `mle local train --distributed`: all at once in the foreground, until the master has ended.

What they print comes line by line, each with the name of its replica. Ctrl-C ends them all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from enginehouse.core.errors import FailedPrecondition

if TYPE_CHECKING:
    from enginehouse.cli.local import Command

_POLL_S = 0.05
_DRAIN_S = 2.0
_INTERRUPTED = 130


def run_cluster(commands: Sequence[Command], *, grace_s: float, say: Callable[[str], None]) -> int:
    """Run the commands, the master's first, in the current folder.

    Args:
        grace_s: between SIGTERM and SIGKILL for those that are left.

    Returns:
        The exit status: the master's, or that of the first replica that failed.

    Raises:
        FailedPrecondition: a port is taken.
    """
    _check_ports(commands[0])
    before = signal.signal(signal.SIGTERM, _interrupt)
    replicas: list[_Replica] = []
    try:
        for command in commands:
            replicas.append(_Replica(command))  # noqa: PERF401  what was started is to be ended, come what may
        return _wait(replicas, say)
    except KeyboardInterrupt:
        say("Ending all replicas.")
        return _INTERRUPTED
    finally:
        _end(replicas, grace_s)
        signal.signal(signal.SIGTERM, before)


class _Replica:
    """A process in a group of its own, so that all of it can be ended."""

    def __init__(self, command: Command) -> None:
        self.task_name = command.task_name
        self.process = subprocess.Popen(
            command.arguments,
            env=command.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        assert self.process.stdout and self.process.stderr
        self._printers = [
            threading.Thread(target=self._print, args=pair, daemon=True)
            for pair in ((self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr))
        ]
        for printer in self._printers:
            printer.start()

    def _print(self, source: IO[bytes], target: IO[str]) -> None:
        for line in source:
            target.write(f"{self.task_name}: {line.decode(errors='replace').rstrip()}\n")
            target.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it to all its processes, those that its main process has left behind included."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def drain(self) -> None:
        """Wait until all that it printed is out."""
        for printer in self._printers:
            printer.join(_DRAIN_S)


def _wait(replicas: Sequence[_Replica], say: Callable[[str], None]) -> int:
    while True:
        for replica in replicas:
            code = replica.process.poll()
            if code is None or (code == 0 and replica is not replicas[0]):
                continue
            status = code if code >= 0 else 128 - code
            replica.drain()
            if status:
                say(f"The replica {replica.task_name} ended with exit status {status}; ending the others.")
            return status
        time.sleep(_POLL_S)


def _end(replicas: Sequence[_Replica], grace_s: float) -> None:
    """SIGTERM to all that is left, SIGKILL after the grace, or at once when Ctrl-C is pressed again."""
    for replica in replicas:
        replica.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    try:
        while any(replica.process.poll() is None for replica in replicas) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        pass
    for replica in replicas:
        replica.signal(signal.SIGKILL)
        replica.process.wait()
        replica.drain()


def _check_ports(master: Command) -> None:
    """Refuse what could not work: other programs on the cluster's ports."""
    cluster: dict[str, list[str]] = json.loads(master.variables["TF_CONFIG"])["cluster"]
    for address in (each for addresses in cluster.values() for each in addresses):
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise FailedPrecondition(
                    f"The port {port} is taken ({error.strerror}). Give another first port with --start-port."
                ) from None


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
