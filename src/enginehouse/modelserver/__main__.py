"""Entry of a model server: `PYTHON -I …/modelserver/__main__.py --socket-fd N …`, started by the engine.

PYTHON belongs to the version's runtime, which knows nothing of the engine; where that one is too old, it is the
engine's own, and a worker in the runtime has the model (`worker`). So this file makes the package
`enginehouse.modelserver` importable from where it lies, and nothing beside it: the engine's own packages stay out.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import os
import signal
import site
import socket
import sys
import types
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _make_package_importable() -> None:
    """Register `enginehouse` as an empty package and `enginehouse.modelserver` as the directory of this file."""
    here = Path(__file__).resolve().parent
    parent = types.ModuleType("enginehouse")
    parent.__path__ = []
    sys.modules["enginehouse"] = parent
    spec = importlib.util.spec_from_file_location(
        "enginehouse.modelserver", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["enginehouse.modelserver"] = package
    spec.loader.exec_module(package)
    parent.modelserver = package  # type: ignore[attr-defined]


def _die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, also in the middle of a call that never returns.

    Where the kernel has no such service, the end of the socket does the same between two calls.
    """
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--journal-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--framework", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--max-rows", type=int, required=True)
    parser.add_argument("--max-wait-s", type=float, required=True)
    parser.add_argument("--started-s", type=float, required=True)
    parser.add_argument("--explanation", default="")
    parser.add_argument("--site-dir", action="append", default=[])
    parser.add_argument("--outside", type=Path, help="the old interpreter that the model runs in, with the site dirs")
    return parser.parse_args()


def main() -> int:
    """Run until the engine hangs up; the exit code is `app.run`'s."""
    arguments = _arguments()
    _die_with_parent(arguments.parent_pid)
    for fd in (arguments.socket_fd, arguments.channel_fd, arguments.journal_fd):
        os.set_inheritable(fd, False)
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if arguments.outside is None:
        for directory in reversed(arguments.site_dir):
            sys.path.insert(0, directory)
            site.addsitedir(directory)
    _make_package_importable()
    from enginehouse.modelserver import app

    outside = None
    if arguments.outside is not None:
        from enginehouse.modelserver.worker.link import Outside

        outside = Outside(arguments.outside, tuple(map(Path, arguments.site_dir)))

    with (
        socket.socket(fileno=arguments.socket_fd) as connection,
        socket.socket(fileno=arguments.channel_fd) as channel,
    ):
        connection.setblocking(True)
        channel.setblocking(True)
        return app.run(
            connection,
            arguments.framework,
            arguments.directory,
            max_rows=arguments.max_rows,
            max_wait_s=arguments.max_wait_s,
            started_s=arguments.started_s,
            channel=channel,
            journal_fd=arguments.journal_fd,
            explanation=arguments.explanation,
            outside=outside,
        )


if __name__ == "__main__":
    sys.exit(main())
