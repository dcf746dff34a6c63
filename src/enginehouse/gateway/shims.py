"""`gcloud` and `gsutil` for a wired shell: two small scripts, first on PATH, that call `enginehouse.cli.shim`.

That calls the Cloud SDK where there is one, and serves the same commands itself where there is none.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from enginehouse.core.files import atomic_write
from enginehouse.gateway.environment import SHIMS_VARIABLE

TOOLS = ("gcloud", "gsutil")


def write_shims(directory: Path) -> None:
    """Write the scripts into `directory`, which is to be put first in PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        # -I: a training process's own packages must not get into the way.
        command = shlex.join([sys.executable, "-I", "-m", "enginehouse.cli.shim", tool])
        script = f'#!/bin/sh\nexec {command} "$@"\n'.encode()
        path = directory / tool
        if not path.exists() or path.read_bytes() != script:
            atomic_write(path, script, mode=0o755)


def find_real(tool: str, environ: Mapping[str, str]) -> str | None:
    """The Cloud SDK's own program behind ours on PATH, or None where no SDK is installed."""
    shims = environ.get(SHIMS_VARIABLE)
    entries = [entry for entry in environ.get("PATH", os.defpath).split(os.pathsep) if entry != shims]
    return shutil.which(tool, path=os.pathsep.join(entries))
