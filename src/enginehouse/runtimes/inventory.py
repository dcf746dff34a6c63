"""What lies in the cache of runtimes, what of it is of no more use, and what this host can build.

In come a catalogue and the cache's directory; out come rows for people. Called by the engine's API and by
`mle runtimes`; `prune` is the only thing that removes what is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.files import FileLock, is_locked
from enginehouse.runtimes.cache import MARKER_FILE, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Resolution

_LEFTOVER = re.compile(r"\.building-(.+)-[0-9a-f]{8}(-old)?")


@dataclass(frozen=True)
class Entry:
    """One directory of the cache.

    Attributes:
        kind: "runtime", "overlay" (users' packages) or "leftover" (of a killed build, or one that is going on).
        key: what is locked while it is built.
        runtime: name of the runtime, "" for a leftover.
        superseded: nothing finds it any more: the catalogue's lock changed, or its runtime is gone.
    """

    path: Path
    kind: str
    key: str
    runtime: str
    superseded: bool
    size_bytes: int


class Inventory:
    """The cache as it is.

    Args:
        root: the cache's directory.
        catalogue: says which environments are current.
    """

    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self._root = root
        self._catalogue = catalogue
        self._cache = RuntimeCache(root, None)

    def rows(self) -> list[dict[str, Any]]:
        """One for each runtime: what it is, which Python it gets on this host and why, what of it is built."""
        built: dict[str, int] = {}
        for entry in self._environments():
            if not entry.superseded:
                built[entry.runtime] = built.get(entry.runtime, 0) + entry.size_bytes
        return [
            {
                "name": runtime.name,
                "aliases": list(runtime.aliases),
                "frameworks": dict(runtime.frameworks),
                "pythonVersions": list(runtime.known_python_versions),
                **self._choice(runtime.name),
                "description": runtime.description,
                "built": runtime.name in built,
                "sizeBytes": built.get(runtime.name, 0),
            }
            for runtime in self._catalogue.runtimes()
        ]

    def _choice(self, name: str) -> dict[str, str]:
        try:
            resolution = self._catalogue.resolve(name)
        except InvalidArgument as error:
            return {"pythonVersion": "", "reason": error.violations[0].description}
        return {"pythonVersion": resolution.python_version, "reason": resolution.reason}

    def entries(self) -> list[Entry]:
        """All that lies in the cache."""
        runtimes = list(self._environments())
        current = {entry.key for entry in runtimes if not entry.superseded}
        return [*runtimes, *self._overlays(current), *self._leftovers()]

    def _environments(self) -> Iterator[Entry]:
        current = {
            self._cache.key(Resolution(runtime, python, ""))
            for runtime in self._catalogue.runtimes()
            for python in runtime.python_versions
        }
        for marker_file in sorted(self._root.glob(f"*/{MARKER_FILE}")):
            path = marker_file.parent
            marker = _read(marker_file)
            usable = path.name in current and (path / "bin/python").exists()
            yield Entry(path, "runtime", path.name, marker["runtime"], not usable, marker["size_bytes"])

    def _overlays(self, current: Collection[str]) -> Iterator[Entry]:
        for marker_file in sorted(self._root.glob("overlays/*/overlay.json")):
            path = marker_file.parent
            runtime = _read(marker_file).get("runtime", "")
            yield Entry(path, "overlay", path.name, runtime, runtime not in current, _size_bytes(path))

    def _leftovers(self) -> Iterator[Entry]:
        for path in sorted([*self._root.glob(".building-*"), *self._root.glob("overlays/.building-*")]):
            if match := _LEFTOVER.fullmatch(path.name):
                building = is_locked(path.with_name(f".{match[1]}.lock"))
                yield Entry(path, "leftover", match[1], "", not building, _size_bytes(path))

    def prune(self, wanted: Callable[[Entry], bool], *, dry_run: bool = False) -> list[tuple[Entry, str]]:
        """Remove what is `wanted` and neither being built nor used by a process. What is removed is built again when
        it is needed.

        Returns:
            Each entry with what became of it: "removed", "in use" or "being built".
        """
        used = _used_below(self._root)
        answer = []
        for entry in self.entries():
            if not wanted(entry):
                continue
            lock = FileLock(entry.path.with_name(f".{entry.key}.lock"))
            if any(text.startswith((f"{entry.path}/", f"{entry.path}\0")) for text in used):
                answer.append((entry, "in use"))
            elif not lock.acquire(blocking=False):
                answer.append((entry, "being built"))
            else:
                try:
                    if not dry_run:
                        _remove(entry)
                finally:
                    lock.release()
                answer.append((entry, "removed"))
        return answer


def _remove(entry: Entry) -> None:
    """Take it out of sight in one step, so that a kill leaves nothing half removed in its place."""
    path = entry.path
    if entry.kind != "leftover":
        path = path.rename(path.with_name(f".building-{entry.key}-{uuid.uuid4().hex[:8]}"))
    shutil.rmtree(path, ignore_errors=True)


def _used_below(root: Path) -> set[str]:
    """The paths below `root` that processes were started with, by command line or environment, ended by a zero."""
    needle = re.compile(re.escape(os.fsencode(root)) + rb"/[^\0:]*")
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for file in ("cmdline", "environ"):
            try:
                found.update(os.fsdecode(text) + "\0" for text in needle.findall((entry / file).read_bytes()))
            except OSError:  # it ended, or belongs to somebody else
                continue
    return found


def _size_bytes(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:  # being built or removed
                continue
    return total


def _read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_bytes())
    return value
