"""A runner that is started before there is a replica for it, so that nothing is left to be imported then.

In comes, by a socket, the directory of a replica and the variables to have, with the descriptor that holds its lock;
or the end of whoever might have sent it. Called by `replica.runner`; `backends/local/ahead.py` is the other side.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from enginehouse.replica import zygote
from enginehouse.replica.spec import RUNNER_LOG_FILE
from enginehouse.runtimes import overlay  # noqa: F401 - a fresh runner imports it only once it needs it

MAX_MESSAGE_BYTES = 256 * 1024
PLACEHOLDER = "-" * 4096
"""Stands for the directory among the arguments of such a runner, where /proc tells of the replica later."""


def await_replica(arguments: Sequence[str]) -> tuple[Path, int] | None:
    """Wait, then be the runner that was started for that replica. Its directory and its lock; None if there is none.

    Args:
        arguments: the runner's: the placeholder, the socket's descriptor, and what more there is.
    """
    with socket.socket(fileno=int(arguments[1])) as channel:
        try:
            message, locks, _flags, _address = socket.recv_fds(channel, MAX_MESSAGE_BYTES, 1)
        except OSError:
            return None
    if not locks:
        return None
    given = json.loads(message)
    directory = Path(given["directory"])
    os.environ.clear()
    os.environ.update(given["variables"])
    os.chdir(directory)
    log = os.open(RUNNER_LOG_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    zygote.show_command([*sys.orig_argv[: -len(arguments)], str(directory), str(locks[0])])  # type: ignore[no-untyped-call]
    return directory, locks[0]
