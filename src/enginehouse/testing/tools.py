"""Programs from PyPI that tests and benchmarks run, each in an environment of its own in the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import uv

from enginehouse.core.files import FileLock


def installed(*requirements: str) -> Path:
    """The directory of the programs of these packages, installed where that has not happened yet.

    Args:
        requirements: with exact versions, such as "gsutil==5.38"; the first one names the environment.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "enginehouse" / "tools"
    base.mkdir(parents=True, exist_ok=True)
    environment = base / requirements[0]
    done = environment / ".installed"
    with FileLock(base / f"{requirements[0]}.lock").held():
        if not done.exists() or done.read_text() != "\n".join(requirements):
            tool = uv.find_uv_bin()
            subprocess.run([tool, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
            python = environment / "bin" / "python"
            subprocess.run([tool, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
            done.write_text("\n".join(requirements))
    return environment / "bin"
