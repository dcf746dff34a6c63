"""Where the Pythons of this host are.

In comes "3.12", out comes the path of such an interpreter. Looked at in this order: the engine's own, PATH, pyenv's
versions, what uv manages. Nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from enginehouse.core.clock import Clock, SystemClock

_PROBE_TIMEOUT_S = 10
_MISS_HOLDS_S = 20.0


class Interpreters:
    """Finds interpreters by minor version and remembers those it found.

    Args:
        uv: asked last; None skips it.
        clock: tells how long ago one was looked for in vain.
    """

    def __init__(self, uv: Path | None = None, clock: Clock | None = None) -> None:
        self._uv = uv
        self._clock = clock or SystemClock()
        self._found: dict[str, Path] = {}
        self._missed_s: dict[str, float] = {}

    def find(self, version: str) -> Path | None:
        """An interpreter of `version` ("3.12"), or None. One that vanished is looked for again; so is, after a while,
        one that was not there."""
        known = self._found.get(version)
        if known is not None and known.exists():
            return known
        now_s = self._clock.monotonic()
        if now_s - self._missed_s.get(version, -_MISS_HOLDS_S) < _MISS_HOLDS_S:
            return None
        if (found := self._search(version)) is None:
            self._missed_s[version] = now_s
            return None
        self._found[version] = found
        return found

    def _search(self, version: str) -> Path | None:
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            return Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return next((path for path in self._candidates(version) if _is_python(path, version)), None)

    def _candidates(self, version: str) -> Iterator[Path]:
        root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        on_path = shutil.which(f"python{version}")
        if on_path and Path(on_path).parent != root / "shims":  # a shim may run nothing, and takes its time for it
            yield Path(on_path)
        pattern = re.compile(re.escape(version) + r"\.(\d+)")
        versions = [(match, path) for path in root.glob("versions/*") if (match := pattern.fullmatch(path.name))]
        for _, path in sorted(versions, key=lambda item: -int(item[0][1])):
            yield path / "bin" / f"python{version}"
        if self._uv:
            command = [str(self._uv), "python", "find", "--no-project", "--no-python-downloads", "--system", version]
            if answer := _output(command):
                yield Path(answer)


def _is_python(path: Path, version: str) -> bool:
    """Whether it runs and is what its name says: a pyenv shim on PATH may be neither."""
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    return _output([str(path), "-E", "-s", "-S", "-c", tell]) == version


def _output(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").strip()
