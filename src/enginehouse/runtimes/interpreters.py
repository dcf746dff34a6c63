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

_PROBE_TIMEOUT_S = 10


class Interpreters:
    """Finds interpreters by minor version and remembers those it found.

    Args:
        uv: asked last; None skips it.
    """

    def __init__(self, uv: Path | None = None) -> None:
        self._uv = uv
        self._found: dict[str, Path] = {}

    def find(self, version: str) -> Path | None:
        """An interpreter of `version` ("3.12"), or None. One that vanished is looked for again."""
        known = self._found.get(version)
        if known is None or not known.exists():
            if (found := self._search(version)) is None:
                return None
            self._found[version] = found
        return self._found[version]

    def _search(self, version: str) -> Path | None:
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            return Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        return next((path for path in self._candidates(version) if _is_python(path, version)), None)

    def _candidates(self, version: str) -> Iterator[Path]:
        if on_path := shutil.which(f"python{version}"):
            yield Path(on_path)
        root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
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
    return _output([str(path), "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == version


def _output(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").strip()
