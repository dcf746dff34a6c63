"""Which program runs containers on this host: podman or docker, if one is there and answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time

from enginehouse.core.errors import FailedPrecondition

KNOWN = ("podman", "docker")
_TIMEOUT_S = 20.0
_GOOD_FOR_S = 60.0


class ContainerEngines:
    """Finds the engine; thread-safe.

    Args:
        choice: "auto" for the first of `KNOWN` that answers, "none", or the name or path of one.
    """

    def __init__(self, choice: str = "auto") -> None:
        self._choice = choice
        self._lock = threading.Lock()
        self._found = ""
        self._found_s = 0.0

    def find(self) -> str:
        """The path of an engine that answers; one that was found is not asked again for a minute.

        Raises:
            FailedPrecondition: there is none, with why and what to install.
        """
        with self._lock:
            if self._found and time.monotonic() - self._found_s < _GOOD_FOR_S:
                return self._found
            faults = []
            for name in () if self._choice == "none" else KNOWN if self._choice == "auto" else (self._choice,):
                path = shutil.which(name)
                fault = _fault(path) if path else "not installed"
                if path and not fault:
                    self._found, self._found_s = path, time.monotonic()
                    return path
                faults.append(f"{name}: {fault}")
        told = "; ".join(faults) or "switched off"
        raise FailedPrecondition(
            f"A custom container needs podman or docker on this machine, and neither answers ({told}). Install one, "
            "such as with 'apt-get install podman', or name it in the setting container_engine."
        )


def _fault(path: str) -> str:
    """What keeps an engine from answering, "" if nothing does."""
    command = [path, "info", "--format", "{{json .}}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode != 0:
        return said[-1] if said else f"it ended with exit status {done.returncode}"
    try:
        errors = json.loads(done.stdout).get("ServerErrors")  # docker's, whose own end was well
    except (ValueError, AttributeError):
        errors = None
    return str(errors[0]) if errors else ""
