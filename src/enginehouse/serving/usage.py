"""What a model server uses of the machine, from /proc; a worker beside it (`modelserver.worker`) included."""

from __future__ import annotations

import os
import re
from pathlib import Path

from enginehouse.core.errors import InvalidArgument

DEFAULT_SHARE = 0.6
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([GM](?:i?B)?)?", re.IGNORECASE)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Memory that would be free without the process: what it has resident, without files that others share."""
    total = 0
    for each in _family(pid):
        try:
            _size, resident, shared, *_ = Path(f"/proc/{each}/statm").read_text().split()
        except (OSError, ValueError):
            continue
        total += (int(resident) - int(shared)) * _PAGE_BYTES
    return total


def cpu_s(pid: int) -> float:
    """Processor time so far."""
    total = 0
    for each in _family(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])  # utime, stime; proc(5)
    return total / _TICKS_PER_S


def host_memory_bytes() -> int:
    """All of the machine's."""
    return os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES


def budget_bytes(text: str) -> int:
    """The setting `serving_memory` in bytes; a share of the machine's memory for "".

    Raises:
        InvalidArgument: it is no amount of memory.
    """
    if not text:
        return int(host_memory_bytes() * DEFAULT_SHARE)
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"{text!r} is no amount of memory; write 8GiB or 512MiB.", field="serving_memory")
    return int(float(found[1]) * (1024**2 if (found[2] or "G")[0] in "mM" else 1024**3))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, children)]
