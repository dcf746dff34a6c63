"""A program that answers as podman does, as far as replicas ask, and runs the commands of "containers" on the host.

For machines without an engine: it shows what the engine is told (a file of its command lines), that variables and
exit statuses come through, and what is left behind. Namespaces, mounts and limits are not its business.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PROGRAM = Path(__file__).with_name("fake_podman.py")


class FakePodman:
    """The program, in a directory to put on PATH.

    Args:
        images: name → "entrypoint" and "cmd", as lists.
    """

    def __init__(self, directory: Path, images: dict[str, dict[str, Sequence[str]]]) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "images.json").write_text(json.dumps(images))
        self.path = directory / "podman"
        self.path.write_text(f"#!{sys.executable}\n{_PROGRAM.read_text()}")
        self.path.chmod(0o755)

    def said(self, verb: str) -> list[list[str]]:
        """The command lines of one verb so far."""
        file = self.directory / "said"
        lines: list[list[Any]] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line[0] == verb]

    def containers(self) -> list[str]:
        """Those that were not removed."""
        return [each.name.removeprefix("container-") for each in self.directory.glob("container-*")]

    def run_out_of_memory(self) -> None:
        """From now on, what ends was killed for want of memory."""
        (self.directory / "oom").touch()
