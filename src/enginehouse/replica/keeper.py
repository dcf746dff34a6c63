"""Keeps the container of a model server: runs it until it ends, or until whoever asked for it is gone.

    python -m enginehouse.replica.keeper ENGINE NAME GRACE_S VARIABLES COMMAND...

COMMAND runs the container NAME in the foreground, with ENGINE (podman or docker). The keeper's standard input is a
pipe that whoever wants the container holds: when it is closed, by intent or by death, the container gets SIGTERM, and
after GRACE_S seconds SIGKILL. Whatever ends it, it is removed, and so is the file VARIABLES, which COMMAND reads the
container's variables from. The exit status is the container's.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from enginehouse.replica.container import remove


def main(engine: str, name: str, grace_s: float, variables: Path, command: list[str]) -> int:
    """See the module."""
    for number in (signal.SIGTERM, signal.SIGINT):  # who wants the end closes the pipe
        signal.signal(number, signal.SIG_IGN)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        ended = os.pidfd_open(child.pid)
        watched = select.poll()
        watched.register(ended, select.POLLIN)
        watched.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
        if all(fd != ended for fd, _ in watched.poll()):
            child.terminate()  # the engine's program hands it on
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                remove(engine, name)
        return child.wait()
    finally:
        remove(engine, name)
        variables.unlink(missing_ok=True)


if __name__ == "__main__":
    engine_path, container, grace, file, *rest = sys.argv[1:]
    sys.exit(main(engine_path, container, float(grace), Path(file), rest))
