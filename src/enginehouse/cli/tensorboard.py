"""`mle tensorboard`: TensorBoard on a job's job-dir, on this machine.

TensorBoard comes from the runtime with the newest TensorFlow. It reads no buckets of the engine, so the event files
below the job-dir are copied into a folder for it and followed while it runs: what is new in them is added to the
copies, which TensorBoard keeps open.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginehouse.cli.base import Command
from enginehouse.cli.invocation import Invocation, pass_invocation
from enginehouse.core.errors import EngineError, FailedPrecondition, NotFound
from enginehouse.core.names import ObjectUri

if TYPE_CHECKING:
    from enginehouse.sdk.client import Client
    from enginehouse.sdk.storage import Storage

_MARK = "tfevents"
_HOST = "127.0.0.1"
_FOLLOW_S = 3.0
_POLL_S = 0.3
_START_LIMIT_S = 120.0


@click.command(
    cls=Command,
    examples="""
        mle tensorboard iris_1
        mle tensorboard iris_tuning --port 0
        mle tensorboard gs://iris/jobs/iris_1
    """,
)
@click.argument("job")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="Port; 0 takes a free one."
)
@pass_invocation
def tensorboard(invocation: Invocation, job: str, port: int) -> None:
    """Show a job's training in TensorBoard, all trials of a tuning job side by side, until Ctrl-C.

    JOB is a job's id, or a folder of a bucket.
    """
    client = invocation.client()
    folder = _folder(client, job)
    port = _free_port(port)
    with tempfile.TemporaryDirectory(prefix="mle-tensorboard-") as scratch:
        copies = EventFiles(client.storage, folder, Path(scratch))
        count = copies.update()
        invocation.say(f"{count} event files below {folder}." if count else f"No event files below {folder} yet.")
        process = subprocess.Popen(
            [
                *(_python(invocation), "-m", "tensorboard.main", "--logdir", scratch, "--host", _HOST),
                *("--port", str(port), "--reload_interval", str(int(_FOLLOW_S))),
            ],
            env=_variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(Path(scratch) / ".tensorboard.log").open("wb"),
        )
        stop = threading.Event()
        before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = _follow(invocation, process, copies, f"http://{_HOST}:{port}/", stop)
        finally:
            process.terminate()
            process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        if code:
            said = (Path(scratch) / ".tensorboard.log").read_text(errors="replace").strip().splitlines()
            raise FailedPrecondition(f"TensorBoard ended with exit status {code}: {said[-1] if said else ''}")


class EventFiles:
    """Local copies of the event files below a folder of a bucket."""

    def __init__(self, storage: Storage, folder: ObjectUri, target: Path) -> None:
        self._storage = storage
        self._folder = folder
        self._target = target

    def update(self) -> int:
        """Bring the copies up to date, by adding to them where the rest is as it was.

        Returns:
            How many there are.
        """
        from enginehouse.sdk.transfer import below

        prefix = self._folder.name
        count = 0
        for found in self._storage.list(self._folder.bucket, prefix):
            relative = found.uri.name[len(prefix) :]
            if _MARK not in relative.rpartition("/")[2]:
                continue
            count += 1
            copy = below(self._target, relative)
            has_bytes = copy.stat().st_size if copy.exists() else 0
            if has_bytes == found.size_bytes:
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                data = b"".join(self._storage.read(found, start=has_bytes if has_bytes < found.size_bytes else 0))
            except NotFound:  # replaced meanwhile; the next look sees what by
                continue
            with copy.open("ab" if has_bytes < found.size_bytes else "wb") as file:
                file.write(data)
        return count


def _folder(client: Client, job: str) -> ObjectUri:
    """The folder to show, its name with a slash at the end.

    Raises:
        NotFound: there is no such job.
        FailedPrecondition: it has no job-dir.
    """
    text = job
    if not job.startswith("gs://"):
        text = client.jobs.get(job).get("trainingInput", {}).get("jobDir", "")
        if not text:
            raise FailedPrecondition(
                f"Job [{job}] has no job-dir, so there is nothing to show; name the folder where its trainer writes: "
                "mle tensorboard gs://BUCKET/FOLDER"
            )
    uri = ObjectUri.parse(text, field="job")
    return ObjectUri(uri.bucket, uri.name.rstrip("/") + "/" if uri.name else "")


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise FailedPrecondition(
                f"The port {port} can't be used ({error.strerror}). Give another with --port, or 0 for a free one."
            ) from None
        return int(probe.getsockname()[1])


def _python(invocation: Invocation) -> str:
    """The interpreter of the runtime that has TensorBoard; the runtime is built if need be."""
    from enginehouse.cli.local import newest_runtime
    from enginehouse.runtimes.cache import RuntimeCache
    from enginehouse.runtimes.catalogue import Catalogue
    from enginehouse.sdk.packaging import find_uv

    catalogue = Catalogue.load(uv=find_uv())
    resolution = catalogue.resolve(newest_runtime(catalogue))
    cache = RuntimeCache(invocation.settings().runtimes_dir, find_uv())
    return str(cache.ensure(resolution, invocation.say).python)


def _variables() -> dict[str, str]:
    own = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")} | own


def _follow(
    invocation: Invocation, process: subprocess.Popen[bytes], copies: EventFiles, url: str, stop: threading.Event
) -> int:
    """Tell the URL when it answers, and follow the event files until TensorBoard ends or is to be stopped.

    Returns:
        TensorBoard's exit status, 0 when it was stopped.
    """
    for _ in _until(stop, _POLL_S, limit_s=_START_LIMIT_S):
        if process.poll() is not None or _answers(url):
            break
    if process.poll() is None and not stop.is_set():
        invocation.say("TensorBoard is at the address below; Ctrl-C ends it.")
        click.echo(url)
    missed = False
    for _ in _until(stop, _FOLLOW_S):
        if (code := process.poll()) is not None:
            return code
        try:
            copies.update()
            missed = False
        except EngineError as error:
            if not missed:
                invocation.say(f"WARNING: no news of the event files: {error.message}")
            missed = True
    return 0


def _until(stop: threading.Event, every_s: float, *, limit_s: float = float("inf")) -> Iterator[None]:
    waited_s = 0.0
    while waited_s < limit_s and not stop.wait(every_s):
        waited_s += every_s
        yield


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
