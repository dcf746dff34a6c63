"""The engine's side of a runner that waits for its replica (replica/ahead.py).

Called by `backends.local.warm`, under its lock.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.backends.local.zygote import Zygote
from enginehouse.replica.ahead import PLACEHOLDER


class RunnerAhead:
    """One such runner. Without a replica it ends when it is closed, and with this process.

    Args:
        command: of a runner, without arguments.
        zygote: forks it, with a child beside it that may become the user process; None for one without.

    Raises:
        OSError: as of `Zygote.fork`, or there are no more processes.
    """

    def __init__(self, command: Sequence[str], zygote: Zygote | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                if zygote is None:
                    self._process = _spawn([*command, PLACEHOLDER, str(theirs.fileno())], theirs.fileno())
                else:
                    zygote.fork(Path("/"), theirs.fileno(), [*command, PLACEHOLDER], os.environ, Path(os.devnull))
            except OSError:
                self.close()
                raise

    @property
    def is_child(self) -> bool:
        """Whether it is a child of this process, not a zygote's, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def take(self, directory: Path, lock: int, variables: Mapping[str, str]) -> bool:
        """Give it a replica, the descriptor that holds its lock, and a runner's variables.

        Returns:
            False where it is gone or can't take them: nothing was started.
        """
        try:
            message = json.dumps({"directory": str(directory), "variables": dict(variables)}).encode()
            socket.send_fds(self._channel, [message], [lock])
        except OSError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        self._channel.close()


def _spawn(command: Sequence[str], channel: int) -> subprocess.Popen[bytes]:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as the backend does it
    try:
        return subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[channel],
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
