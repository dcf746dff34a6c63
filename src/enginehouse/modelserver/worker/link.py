"""The way to the worker in an old runtime: starts it, hands it calls, and ends as it ends.

Used by `adapters.outside` on the engine's Python. The format of the messages is told in `inside`.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError
from enginehouse.modelserver.worker import inside

_send: Callable[..., None] = inside.send
_receive: Callable[[socket.socket], tuple[dict[str, Any], bytearray] | None] = inside.receive
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Outside:
    """Where a model runs that can't run in this process.

    Args:
        python: the interpreter of its runtime.
        site_dirs: as in `serving.types.ServedVersion`.
    """

    python: Path
    site_dirs: tuple[Path, ...] = ()


class WorkerError(Exception):
    """What the model raised over there; of a class of the same name, below the built-in ones that were its bases.

    Attributes:
        blames_data: the framework says that the data is to blame.
    """

    blames_data = False
    words = ""

    def __str__(self) -> str:
        return self.words


class WorkerLink:
    """A worker with a loaded model. One thread.

    Attributes:
        facts: what the worker tells of the model, see the classes in `inside`.
    """

    def __init__(self, outside: Outside, framework: str, directory: Path) -> None:
        """Start the worker and wait until it has the model.

        Raises:
            ModelLoadError: it can't have it.
        """
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [str(outside.python), "-s", "-u", inside.__file__, str(theirs.fileno()), framework]
            command += [str(directory), *map(str, outside.site_dirs)]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONIOENCODING": "utf-8"},
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise ModelLoadError(f"the runtime could not be started: {error}") from error
        head, _ = self._receive()
        if "refused" in head:
            raise ModelLoadError(head["refused"])
        for category, text in head["warnings"]:
            warnings.warn(text, type(category, (UserWarning,), {}), stacklevel=2)
        self.facts: dict[str, Any] = head["loaded"]

    def call(self, name: str, *values: Any) -> list[Any]:
        """Have the worker make a call; arrays stay arrays, all else is JSON.

        Raises:
            WorkerError: the model raised.
        """
        packed = [pack(value) for value in values]
        head = {"call": name, "arrays": [spec for spec, _ in packed]}
        try:
            _send(self._connection, head, [content for _, content in packed])
        except OSError:
            self._follow()
        answer, payload = self._receive()
        if "error" in answer:
            raise error_of(answer["error"])
        return unpack(answer["arrays"], payload)

    def _receive(self) -> tuple[dict[str, Any], bytearray]:
        try:
            message = _receive(self._connection)
        except (OSError, TypeError):  # a message that breaks off
            message = None
        if message is None:
            self._follow()
        return message

    def _follow(self) -> NoReturn:
        """Without its worker this process is of no use, and the engine shall hear how it ended: end the same way."""
        code = self._process.wait()
        sys.stdout.flush()
        if code < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
            os.kill(os.getpid(), -code)
        os._exit(code or 1)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def error_of(told: dict[str, Any]) -> WorkerError:
    """The exception that a worker tells of."""
    name = told["types"][0]
    known = next((_BUILT_IN[each] for each in told["types"] if each in _BUILT_IN), None)
    error: WorkerError = type(name, (WorkerError,) if known is None else (WorkerError, known), {})()
    error.words = told["message"]
    error.blames_data = told["data"]
    return error


_BUILT_IN: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError)
}


def pack(value: Any) -> tuple[dict[str, Any], Any]:
    """(description, content) of an array or of JSON."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "fiub":
            value = np.ascontiguousarray(value)
            return {"dtype": value.dtype.str, "shape": value.shape, "size": value.nbytes}, _memory(value)
        cells = value.ravel().tolist()
        if cells and all(type(cell) is bytes for cell in cells):
            lengths = np.array([len(cell) for cell in cells], dtype="<u4").tobytes()
            content = lengths + b"".join(cells)
            return {"dtype": "bytes", "shape": value.shape, "size": len(content)}, content
        value = value.tolist()
    content = json.dumps(value, default=_bytes_as_json).encode()
    return {"dtype": "json", "shape": [], "size": len(content)}, content


def _memory(array: Array) -> Any:
    return array.reshape(-1).view(np.uint8).data if array.nbytes else b""


def _bytes_as_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes_b64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is no JSON")


def unpack(specs: Sequence[dict[str, Any]], payload: bytearray) -> list[Any]:
    """The arrays of an answer; lists and objects where there was no array."""
    values: list[Any] = []
    start = 0
    for spec in specs:
        part = memoryview(payload)[start : start + spec["size"]]
        start += spec["size"]
        if spec["dtype"] == "json":
            values.append(json.loads(bytes(part)))
        elif spec["dtype"] in ("bytes", "text"):
            n = math.prod(spec["shape"])
            lengths = np.frombuffer(part, dtype="<u4", count=n).tolist()
            values.append(_cells(bytes(part[4 * n :]), lengths, spec))
        else:
            values.append(np.frombuffer(part, dtype=spec["dtype"]).reshape(spec["shape"]))
    return values


def _cells(data: bytes, lengths: list[int], spec: dict[str, Any]) -> Array:
    array = np.empty(len(lengths), dtype=object)
    start = 0
    for index, length in enumerate(lengths):
        cell = data[start : start + length]
        array[index] = cell.decode() if spec["dtype"] == "text" else cell
        start += length
    return array.reshape(spec["shape"])
