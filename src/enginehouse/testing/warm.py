"""Runs modules in children of waiting interpreters, without an engine or a runner: what the two ways of starting a
module are compared by.

As a program it stands in for the runner: `python warm.py FOLDER LOCK WARM` begins the module that FOLDER/run.json
names, and leaves FOLDER/result.json.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.backends.local.zygote import Zygote
from enginehouse.replica.environment import Interpreter, Prepared
from enginehouse.replica.warm import WarmInterpreter
from enginehouse.runtimes.cache import Environment
from enginehouse.testing.replicas import wait_until

PRELOAD = ("decimal", "random", "multiprocessing")


class WarmRuns:
    """Keeps one waiting interpreter per Python."""

    def __init__(self, preload: Sequence[str] = PRELOAD) -> None:
        self._preload = tuple(preload)
        self._zygotes: dict[object, Zygote] = {}

    def run(
        self, python: str, module: str, arguments: Sequence[str], *, folder: Path, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `module` to its end.

        Raises:
            AssertionError: the waiting interpreter would not have it.
        """
        variables = {"PATH": "", **env}
        directory = Path(python).parent.parent
        environment = Environment("test", directory, "test", "", {})
        interpreter = Interpreter(environment, self._preload, variables)
        zygote = self._zygote(interpreter)
        order = {"python": str(environment.python), "module": module, "arguments": arguments, "cwd": str(cwd)}
        (folder / "run.json").write_text(json.dumps({**order, "variables": variables}))
        ended, lock = os.pipe()
        command = [sys.executable, __file__, str(folder)]
        zygote.fork(folder, lock, command, os.environ, folder / "runner.log")
        os.close(lock)
        os.read(ended, 1)  # until the stand-in has ended
        os.close(ended)
        said = (folder / "runner.log").read_text()
        assert (folder / "result.json").exists(), said
        result = json.loads((folder / "result.json").read_bytes())
        assert not result["fault"], result["fault"]
        out, err = base64.b64decode(result["out"]), base64.b64decode(result["err"])
        return subprocess.CompletedProcess([python, module, *arguments], result["status"], out, err)

    def _zygote(self, interpreter: Interpreter) -> Zygote:
        key = str(interpreter.environment.directory), json.dumps(interpreter.fixed_variables, sort_keys=True)
        if key not in self._zygotes:
            zygote = self._zygotes[key] = Zygote(interpreter)
            wait_until(lambda: _settled(zygote), what="the waiting interpreter")
        assert not self._zygotes[key].error, self._zygotes[key].error
        return self._zygotes[key]

    def close(self) -> None:
        """End the interpreters."""
        for zygote in self._zygotes.values():
            zygote.close()


def _settled(zygote: Zygote) -> bool:
    zygote.look()
    return zygote.is_ready or bool(zygote.error)


def main(folder: Path, warm: WarmInterpreter) -> None:
    """What a runner does with the child beside it."""
    order = json.loads((folder / "run.json").read_bytes())
    prepared = Prepared(Path(order["python"]), order["variables"])
    result = {"status": 0, "out": "", "err": ""}
    result["fault"] = warm.begin(
        prepared, order["module"], order["arguments"], Path(order["cwd"]), stopping=lambda: False
    )
    if not result["fault"]:
        streams = {"out": b"", "err": b""}

        def read(name: str, descriptor: int) -> None:
            while data := os.read(descriptor, 65536):
                streams[name] += data

        readers = [threading.Thread(target=read, args=(name, getattr(warm, name))) for name in streams]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        _pid, status = os.waitpid(warm.pid, 0)
        result["status"] = os.waitstatus_to_exitcode(status)
        result |= {name: base64.b64encode(data).decode() for name, data in streams.items()}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), WarmInterpreter.adopt(sys.argv[3]))
