"""Environments for peers: each of its own, made once and kept, so that nothing of ours mixes with theirs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import uv


def environment_python(name: str, requirements: Sequence[str], base: str = sys.executable) -> Path:
    """The interpreter of an environment with the requirements, which is made where it is not there yet.

    What is installed is compiled, so that a peer's processes start as quickly as they can, also where Python may not
    write bytecode.

    Args:
        name: begins the environment's folder.
        base: the interpreter that it is made with.

    Raises:
        subprocess.CalledProcessError: it can't be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "enginehouse" / "bench"
    digest = hashlib.sha256(repr((base, *requirements)).encode()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"Installing {name} ...", file=sys.stderr, flush=True)
        tool = uv.find_uv_bin()
        subprocess.run([tool, "venv", "--quiet", "--clear", "--python", base, folder], check=True)
        install = [tool, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        subprocess.run([*install, *requirements], check=True)
        (folder / ".complete").touch()
    return python
