# -*- coding: utf-8 -*-
# mypy: ignore-errors
"""Entry of a batch prediction job's program: `python -m enginehouse_batch TASK`, by the interpreter of a runtime.

The runtime knows nothing of the engine, so this file alone lies on its path and makes the rooms around it importable
from where they are, without what else the engine has installed beside them.

It is good for Python 2.7, too: where the runtime's Python is too old for the program, this process becomes one of the
engine's Python, whose workers have the model in the runtime (`modelserver.worker`).
"""

import json
import os
import sys

ROOMS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON_VARIABLE = "ENGINEHOUSE_BATCH_PYTHON"
"""The engine's Python, set by `jobs.program`."""
OUTSIDE_VARIABLE = "ENGINEHOUSE_BATCH_OUTSIDE"
"""Tells the workers where the model runs: JSON of the interpreter and the paths to its packages."""
OLDEST_PYTHON = (3, 10)


def become_engine_python():
    here = os.path.dirname(os.path.abspath(__file__))
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != here]
    environ = dict(os.environ, PYTHONPATH=here)
    environ[OUTSIDE_VARIABLE] = json.dumps([sys.executable, paths])
    python = os.environ[PYTHON_VARIABLE]
    bootstrap = os.path.join(ROOMS, "replica", "bootstrap.py")
    sys.stdout.flush()
    os.execve(python, [python, bootstrap, "enginehouse_batch"] + sys.argv[1:], environ)


if __name__ == "__main__":
    if sys.version_info < OLDEST_PYTHON:
        become_engine_python()
    import types

    package = types.ModuleType("enginehouse")
    package.__path__ = [ROOMS]
    sys.modules["enginehouse"] = package
    from enginehouse.batch.coordinator import main

    sys.exit(main(sys.argv[1:]))
