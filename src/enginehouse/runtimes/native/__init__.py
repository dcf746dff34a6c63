"""The one piece of native code: a library that old TensorFlow is started with (see `ca_redirect.c`).

It is compiled where it is first needed, by the host's C compiler or else by that of the `ziglang` wheel, which uv
fetches, and kept in the runtimes' cache.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import uuid
from pathlib import Path

from enginehouse.runtimes.errors import RuntimeBuildError

_SOURCE = Path(__file__).with_name("ca_redirect.c")
_ZIG = "ziglang==0.13.0"
_TIMEOUT_S = 300.0


def ca_redirect_path(root: Path) -> Path:
    """Where the compiled library lies, if it was compiled."""
    return root / "native" / f"ca_redirect-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}.so"


def ensure_ca_redirect(root: Path, uv: Path | None) -> Path:
    """The compiled library, compiled now if it is not there.

    Args:
        root: the runtimes' cache.
        uv: fetches a compiler where the host has none; None if it may not.

    Raises:
        RuntimeBuildError: there is no compiler, or it failed.
    """
    library = ca_redirect_path(root)
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    building = library.with_name(f".{uuid.uuid4().hex}.so")  # two at once make the same
    try:
        _compile(building, uv)
        building.rename(library)
    finally:
        building.unlink(missing_ok=True)
    return library


def _compile(target: Path, uv: Path | None) -> None:
    command = [*_compiler(uv), "-shared", "-fPIC", "-O2", "-o", str(target), str(_SOURCE), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeBuildError(f"{command[0]} failed: {error}") from error
    if done.returncode != 0:
        raise RuntimeBuildError(f"{shlex.join(command)} failed: {done.stderr.strip()[-1000:]}")


def _compiler(uv: Path | None) -> list[str]:
    for name in filter(None, (os.environ.get("CC", ""), "cc", "gcc", "clang")):
        if program := shutil.which(name):
            return [program]
    if uv is not None:
        return [str(uv), "tool", "run", "--from", _ZIG, "python-zig", "cc"]
    raise RuntimeBuildError("no C compiler is on PATH; install gcc or clang")
