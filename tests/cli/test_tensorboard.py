"""`mle tensorboard` on a real engine, with the real TensorBoard.

Slow because the runtime of the newest TensorFlow is started (and built, where it is not yet).
"""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enginehouse.cli.tensorboard import EventFiles
from enginehouse.core.names import ObjectUri
from enginehouse.testing.engine import EngineProcess
from enginehouse.testing.summaries import scalar_record, version_record
from enginehouse.testing.training import Trainings

EVENTS = "events.out.tfevents.1700000000.host"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_GATEWAY": "false"}) as engine:
        yield engine


@pytest.fixture
def trainings(engine: EngineProcess, tmp_path: Path) -> Trainings:
    return Trainings(lambda: engine.url, tmp_path)


def put(trainings: Trainings, name: str, data: bytes, folder: Path) -> None:
    file = folder / "events"
    file.write_bytes(data)
    trainings.client.storage.upload_file(file, ObjectUri(trainings.bucket, f"jobs/tuned/{name}"))


def events(*losses: float) -> bytes:
    return version_record() + b"".join(scalar_record("loss", step, loss) for step, loss in enumerate(losses))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_trials_are_shown_and_followed(engine: EngineProcess, trainings: Trainings, tmp_path: Path) -> None:
    trainings.submit("tuned", "print('trained')")
    put(trainings, f"1/{EVENTS}", events(4.0, 2.0), tmp_path)
    put(trainings, f"2/eval/{EVENTS}", events(3.0), tmp_path)
    put(trainings, "1/model.ckpt", b"x" * 100, tmp_path)
    command = [sys.executable, "-m", "enginehouse.cli", "--project", "demo", "tensorboard", "tuned", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--url", engine.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate()[1]

        def ask(path: str) -> Any:
            with urllib.request.urlopen(f"{address}data/{path}", timeout=60) as answer:
                return json.load(answer)

        def scalars(run: str) -> list[float]:
            return [value for _time, _step, value in ask(f"plugin/scalars/scalars?tag=loss&run={run}")]

        wait_for(lambda: sorted(ask("runs")) == ["1", "2/eval"])
        wait_for(lambda: scalars("1") == [4.0, 2.0])
        put(trainings, f"1/{EVENTS}", events(4.0, 2.0, 1.0), tmp_path)
        wait_for(lambda: scalars("1") == [4.0, 2.0, 1.0])
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "2 event files below gs://trainings/jobs/tuned/." in err
        with pytest.raises(OSError):
            ask("runs")
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Any, *, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_copies_grow_in_place(trainings: Trainings, tmp_path: Path) -> None:
    """TensorBoard keeps them open, so what is there stays where it is."""
    copies = EventFiles(trainings.client.storage, ObjectUri(trainings.bucket, "jobs/tuned/"), tmp_path / "copies")
    assert copies.update() == 0
    put(trainings, EVENTS, events(1.0), tmp_path)
    assert copies.update() == 1
    with (tmp_path / "copies" / EVENTS).open("rb") as kept_open:
        assert kept_open.read() == events(1.0)
        put(trainings, EVENTS, events(1.0, 0.5), tmp_path)
        copies.update()
        assert kept_open.read() == scalar_record("loss", 1, 0.5)
    put(trainings, EVENTS, events(7.0), tmp_path)  # begun anew
    copies.update()
    assert (tmp_path / "copies" / EVENTS).read_bytes() == events(7.0)


def test_refusals(engine: EngineProcess, trainings: Trainings) -> None:
    def refused(*arguments: str) -> str:
        command = [sys.executable, "-m", "enginehouse.cli", "--project", "demo", "tensorboard", *arguments]
        done = subprocess.run([*command, "--url", engine.url], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        return done.stderr

    assert "absent" in refused("absent")
    trainings.submit("nowhere", "print('trained')", jobDir="")
    assert "Job [nowhere] has no job-dir" in refused("nowhere")
