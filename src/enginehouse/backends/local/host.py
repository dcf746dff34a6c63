"""What this machine has: cores that this process may use, memory, and NVIDIA GPUs as nvidia-smi tells them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess

from enginehouse.backends.base import Gpu, Host

_log = logging.getLogger(__name__)

_QUERY = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
_COLUMNS = 3
_TIMEOUT_S = 20.0  # a driver that is just being loaded takes its time


def this_host() -> Host:
    """What this machine has now."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Host(cpus=len(os.sched_getaffinity(0)), gpus=nvidia_gpus(), memory_gib=memory_bytes / (1 << 30))


def nvidia_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; none where nvidia-smi is not there or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("nvidia-smi is there but does not answer, so no GPUs are used: %s", error)
        return ()
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return tuple(Gpu(row[0], row[1], int(row[2]) if row[2].isdigit() else 0) for row in rows if len(row) == _COLUMNS)
