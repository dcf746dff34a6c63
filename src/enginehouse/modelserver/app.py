"""The model server's process: load, test, then answer frames until the engine hangs up.

Started by `__main__`; the socket is one end of a pair that the engine made, so that its end of life is the engine's.

One thread does everything. While a call runs, what arrives waits in the socket; the next read takes all of it, which
is the whole of the batching policy. Decoding, the call and encoding hold Python's lock anyway. Measured on two
cores, with the calls in a second thread a linear model answered as many requests and a forest 15 % fewer.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from enginehouse.modelserver import adapters
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.batcher import Batcher
from enginehouse.modelserver.codecs import dumps
from enginehouse.modelserver.errors import ModelLoadError, describe
from enginehouse.modelserver.frames import CONTROL_ID, FrameReader, pack

_RECEIVE_BYTES = 256 * 1024


def run(connection: socket.socket, framework: str, directory: Path, *, max_rows: int, started_s: float) -> int:
    """Load the model, tell the engine how it went, and serve.

    Args:
        connection: stream socket to the engine, blocking.
        framework: "TENSORFLOW", "SCIKIT_LEARN" or "XGBOOST".
        directory: the model's files.
        max_rows: bound of a merged call.
        started_s: `time.time()` when the engine started this process.

    Returns:
        The exit code: 0 after serving, 1 when the model could not be loaded.
    """
    try:
        adapter, report = _load(framework, directory)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        if not isinstance(error, ModelLoadError):
            words = f"Unexpected error when loading the model: {describe(error)} ({type(error).__name__})"
            error = ModelLoadError(words)
        connection.sendall(pack(CONTROL_ID, 400, dumps({"message": str(error)})))
        return 1
    gc.collect()
    gc.freeze()  # the model is not garbage: later collections need not walk it
    report["loadS"] = time.time() - started_s
    connection.sendall(pack(CONTROL_ID, 200, dumps(report)))
    serve(connection, Batcher(adapter, max_rows=max_rows))
    return 0


def _load(framework: str, directory: Path) -> tuple[Adapter, dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        adapter = adapters.load(framework, directory)
    texts = list(dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught if _concerns_user(w.category)))
    for text in texts:
        print(text, flush=True)
    try:
        self_test = adapter.self_test()
    except ModelLoadError as error:
        raise ModelLoadError(" ".join([error.detail, *texts])) from error
    return adapter, {"selfTest": self_test, "warnings": texts, "signatures": adapter.signatures()}


def _concerns_user(category: type[Warning]) -> bool:
    return not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning))


def serve(connection: socket.socket, batcher: Batcher) -> None:
    """Answer what comes until the other side closes."""
    reader = FrameReader()
    buffer = bytearray(_RECEIVE_BYTES)
    view = memoryview(buffer)
    with contextlib.suppress(ConnectionError):
        while size_bytes := connection.recv_into(buffer):
            frames = list(reader.feed(bytes(view[:size_bytes])))
            for answers in batcher.answer([payload for _, _, payload in frames]):
                connection.sendall(
                    b"".join(pack(frames[position][0], status, body) for position, status, body in answers)
                )
