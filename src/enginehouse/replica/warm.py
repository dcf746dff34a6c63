"""The runner's side of a warm start: a child that waits with the framework imported (replica/zygote.py).

In comes what the runner was started with, out goes the order to run the module; or the child is ended, and a fresh
interpreter takes its place. Called by `replica.process` and `replica.runner` from their main thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.replica.environment import Prepared

BEGIN_LIMIT_S = 10.0
"""A child that has not begun the module by then hangs in something that did not survive the fork."""
_POLL_S = 0.1
_MAX_SOURCE_BYTES = 32 * 1024 * 1024

_IMPORT_TIME = re.compile(
    rb"[\"'](?:TF_(?!CONFIG\b)[A-Z]\w*|TENSORFLOW_\w+|KERAS_\w+|XLA_\w+|TORCH_\w+|PYTORCH_\w+|ENABLE_PJRT\w*"
    rb"|JAX_(?!COORDINATOR_ADDRESS|NUM_PROCESSES|PROCESS_ID)\w+|OMP_\w+|KMP_\w+|GOMP_\w+|MKL_\w+|OPENBLAS_\w+"
    rb"|GOTO_NUM_THREADS|BLIS_\w+|NUMEXPR_\w+|VECLIB_\w+|NPY_\w+|CUDA_\w+|NVIDIA_\w+|GRPC_\w+|PROTOCOL_BUFFERS_\w+"
    rb"|GCS_[A-Z]\w*|LD_PRELOAD|LD_LIBRARY_PATH|MALLOC_\w+|SKLEARN_\w+|SCIPY_\w+|JOBLIB_\w+|PYTHON[A-Z]{2,})[\"']"
)
"""Names of variables that are read while a framework is imported, as strings. Code that has one may set it first."""
_COMPUTED = re.compile(
    rb"\benviron\s*(?:\[(?!\s*[bru]*[\"'])[^\]]*\]\s*=(?!=)|\.\s*(?:update|setdefault)\s*\((?!\s*[bru]*[\"']))"
    rb"|\bputenv\s*\((?!\s*[bru]*[\"'])"
)
"""Sets variables whose names are not written there."""


@dataclass(frozen=True)
class WarmInterpreter:
    """A child of this process that waits for its order.

    Attributes:
        pid: of the child; it leads its own process group.
        control, status: descriptors to it and from it.
        out, err: the reading ends of its output streams.
    """

    pid: int
    control: int
    status: int
    out: int
    err: int

    @classmethod
    def adopt(cls, text: str) -> WarmInterpreter:
        """Read the runner's argument, and keep the descriptors from other children."""
        warm = cls(**json.loads(text))
        for descriptor in (warm.control, warm.status, warm.out, warm.err):
            os.set_inheritable(descriptor, False)
        os.set_blocking(warm.control, False)
        return warm

    def begin(
        self,
        prepared: Prepared,
        module: str,
        arguments: Sequence[str],
        directory: Path,
        *,
        stopping: Callable[[], bool],
        limit_s: float = BEGIN_LIMIT_S,
    ) -> str:
        """Have the module run. "" where it does, or is on its way when a stop was asked for; else why it does not.

        In the second case no user code was run, and the child is gone.
        """
        order = {
            "python": _text(str(prepared.python)),
            "module": _text(module),
            "arguments": [_text(each) for each in arguments],
            "cwd": _text(str(directory)),
            "variables": {_text(name): _text(value) for name, value in prepared.variables.items()},
        }
        fault = source_fault(prepared.variables) or self._order(order, stopping, time.monotonic() + limit_s)
        if fault:
            self.discard()
        return fault

    def _order(self, order: Mapping[str, object], stopping: Callable[[], bool], deadline: float) -> str:
        body = json.dumps(order).encode()
        data, answer = struct.pack("!I", len(body)) + body, b""
        while True:
            readable, writable, _ = select.select([self.status], [self.control] if data else [], [], _POLL_S)
            if writable:
                try:
                    data = data[os.write(self.control, data) :]
                except BrokenPipeError:
                    data = b""  # the status tells
            if readable:
                part = os.read(self.status, 4096)
                answer += part
                if not part or len(answer) >= 4 + struct.unpack("!I", answer[:4].ljust(4, b"\xff"))[0]:
                    fault = _fault(answer[4:])
                    if not fault:
                        os.close(self.control)
                        os.close(self.status)
                    return fault
            elif stopping():
                return ""  # what holds its end is left open: it waits for its order until it is ended
            elif time.monotonic() > deadline:
                return "it did not begin the module"

    def discard(self) -> None:
        """End the child, which has run no user code, and wait for its end."""
        for descriptor in (self.control, self.status, self.out, self.err):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _fault(answer: bytes) -> str:
    if not answer:
        return "it ended"
    return str(json.loads(answer).get("unfit", ""))


def _text(value: str) -> str:
    """Bytes as characters, which every Python's JSON carries."""
    return os.fsencode(value).decode("latin-1")


def source_fault(variables: Mapping[str, str]) -> str:
    """Whether the user's packages may set a variable that is read while a framework is imported; "" if not.

    A fresh interpreter would see such a variable, one that has imported the framework already would not.
    """
    left = _MAX_SOURCE_BYTES
    for folder in variables.get("PYTHONPATH", "").split(os.pathsep):
        for path in Path(folder).rglob("*.py") if folder else ():
            try:
                source = path.read_bytes()
            except OSError:
                continue
            left -= len(source)
            if left < 0:
                return "the packages are too large to be looked through"
            if found := _IMPORT_TIME.search(source) or _COMPUTED.search(source):
                name = found[0].decode("utf-8", "replace").strip()
                return f"{path.relative_to(folder)} may set a variable before its imports ({name})"
    return ""
