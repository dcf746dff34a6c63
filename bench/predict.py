"""Online prediction against a naive FastAPI app with the same model: `python bench/predict.py [--quick]`.

Our side is a whole engine (`mle up`) with the models deployed from a bucket; the peer is `predict_peer/app.py` in one
uvicorn worker. Both serve the same scikit-learn file with the same version of scikit-learn and without access logs,
and are asked by the same load generator in a process of its own. Rounds alternate between the sides, so that a noisy
moment of the machine meets both; figures are medians over the rounds. Every answer is compared with what the model
itself predicts.

The last line of stdout is one JSON object with the bars: throughput of the engine over throughput of the peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import sklearn
import uv
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.runtimes.cache import RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.sdk.client import Client, connect

RUNTIME = "scikit-learn-1.9"
HERE = Path(__file__).resolve().parent
BARS = {1: 1.0, 64: 1.5}
START_TIMEOUT_S = 60.0
Exchange = tuple[str, str]


@dataclass(frozen=True)
class Side:
    """One server under test: where its predict call is."""

    port: int
    path: str


@dataclass(frozen=True)
class Plan:
    """How long to measure: so many rounds, in each a slice for either side after a warm-up."""

    rounds: int
    warm_up_s: float
    slice_s: float


# A single connection is the noisiest, being at the mercy of every wake-up, so it gets the most and shortest slices;
# with 64 connections a slice must be longer than an answer of the slowest side takes.
FULL = {1: Plan(60, 0.05, 0.5), 16: Plan(10, 0.2, 1.5), 64: Plan(10, 0.5, 2.0)}
QUICK = {1: Plan(13, 0.05, 0.25), 16: Plan(3, 0.1, 0.5), 64: Plan(3, 0.3, 0.7)}


@dataclass(frozen=True)
class Figures:
    """What one side showed: requests per second in each round, and percentiles over all requests, in milliseconds."""

    rps_by_round: list[float]
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, rounds: list[dict[str, Any]]) -> Figures:
        """From the rounds of the load generator."""
        latencies_us = sorted(latency for result in rounds for latency in result["latencies_us"])
        if not latencies_us:
            raise SystemExit("not one request was answered")
        p50, p99 = (latencies_us[(len(latencies_us) - 1) * percent // 100] / 1000 for percent in (50, 99))
        return cls([result["requests"] / result["seconds"] for result in rounds], p50, p99)

    @property
    def rps(self) -> float:
        return statistics.median(self.rps_by_round)


def ratio_of(ours: Figures, theirs: Figures) -> float:
    """Median over the rounds of our throughput over theirs in the same round."""
    pairs = zip(ours.rps_by_round, theirs.rps_by_round, strict=True)
    return statistics.median(our / their if their else math.inf for our, their in pairs)


def make_models(directory: Path) -> dict[str, list[Exchange]]:
    """Fit the models on Iris and write `DIRECTORY/NAME/model.joblib`.

    Returns:
        Per model the request bodies of one flower each, with the exact answer expected.
    """
    features, labels = load_iris(return_X_y=True)
    models = {
        "random_forest": RandomForestClassifier(random_state=0),
        "logistic_regression": LogisticRegression(max_iter=1000),
    }
    exchanges = {}
    for name, model in models.items():
        model.fit(features, labels)
        (directory / name).mkdir()
        joblib.dump(model, directory / name / "model.joblib")
        exchanges[name] = [
            (json.dumps({"instances": [row]}), json.dumps({"predictions": [label]}, separators=(",", ":")))
            for row, label in zip(features.tolist(), model.predict(features).tolist(), strict=True)
        ]
    return exchanges


@contextlib.contextmanager
def engine(directory: Path, names: list[str]) -> Iterator[dict[str, Side]]:
    """Our side: `mle up`, the models deployed as any client does, asked through the public port."""
    data_dir = directory / "data"
    mle = [str(Path(sys.executable).with_name("mle"))]
    options = ["--data-dir", str(data_dir)]
    subprocess.run([*mle, "up", "--detach", "--port", "0", *options], check=True, stdout=sys.stderr)
    try:
        url = json.loads((data_dir / "engine.json").read_text())["url"]
        client = connect(url=url, project="bench")
        client.storage.create_bucket("bench")
        for name in names:
            deploy(client, name, directory / name / "model.joblib")
        port = int(url.rpartition(":")[2])
        yield {name: Side(port, f"/v1/projects/bench/models/{name}:predict") for name in names}
    finally:
        subprocess.run([*mle, "down", *options], check=True, stdout=sys.stderr)


def deploy(client: Client, name: str, path: Path) -> None:
    """Make a model with one version of a file."""
    client.storage.upload_file(path, ObjectUri("bench", f"{name}/model.joblib"))
    client.models.create({"name": name})
    version = {
        "name": "v1",
        "deploymentUri": f"gs://bench/{name}/",
        "framework": "SCIKIT_LEARN",
        "runtimeVersion": RUNTIME,
    }
    client.operations.wait(client.versions(name).create(version))


def check_runtime() -> None:
    """Build the runtime if need be, and see that both sides have the same scikit-learn."""
    cache = RuntimeCache(load_settings().runtimes_dir, Path(uv.find_uv_bin()))
    environment = cache.ensure(Catalogue.load().resolve(RUNTIME), lambda line: print(line, file=sys.stderr))
    theirs = environment.packages["scikit-learn"]
    if theirs != sklearn.__version__:
        raise SystemExit(f"the runtime has scikit-learn {theirs}, this interpreter {sklearn.__version__}")
    print(f"scikit-learn {theirs}; engine's models on Python {environment.python_version}, peer on {sys.version[:6]}")


@contextlib.contextmanager
def peer(directory: Path, name: str, port: int) -> Iterator[Side]:
    """The naive app, one uvicorn with one worker."""
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--no-access-log"]
    environment = {**os.environ, "MODEL_PATH": str(directory / name / "model.joblib")}
    with running(command, cwd=HERE / "predict_peer", env=environment) as process:
        wait_for(process, lambda: answers(f"http://127.0.0.1:{port}/openapi.json"))
        yield Side(port, "/predict")


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A server process for the length of the block.

    It gets a session of its own, as the engine does: Linux shares the processors by session, and a server in the
    session of the load generator would be handed each request without having to wait for its turn.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if ready():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"{process.args} did not start")


def answers(url: str) -> bool:
    """Whether somebody serves `url`."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


def compare(sides: dict[str, Side], exchanges: list[Exchange], connections: int, plan: Plan) -> dict[str, Figures]:
    """Ask both sides in turn (A B A B …).

    Raises:
        SystemExit: the load generator failed, or an answer was wrong.
    """
    order = {
        "sides": {name: {"host": "127.0.0.1", **asdict(side)} for name, side in sides.items()},
        "connections": connections,
        "exchanges": exchanges,
        **asdict(plan),
    }
    command = [sys.executable, str(HERE / "predict_load.py")]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"load generator: {done.stderr}")
    return {name: Figures.of(rounds) for name, rounds in json.loads(done.stdout).items()}


def main() -> int:
    """Measure and print; 0 when every bar is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, under a minute in all")
    plans = QUICK if parser.parse_args().quick else FULL
    check_runtime()
    bars = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        directory = Path(scratch)
        exchanges = make_models(directory)
        ours = stack.enter_context(engine(directory, list(exchanges)))
        ports = free_ports(len(exchanges))
        theirs = {
            name: stack.enter_context(peer(directory, name, port))
            for name, port in zip(exchanges, ports, strict=True)
        }
        print(f"{'model':<20} {'conn':>4}  {'side':<7} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
        for name in exchanges:
            for connections, plan in plans.items():
                sides = {"engine": ours[name], "fastapi": theirs[name]}
                figures = compare(sides, exchanges[name], connections, plan)
                for side, shown in figures.items():
                    print(
                        f"{name:<20} {connections:>4}  {side:<7} {shown.rps:>8.0f} "
                        f"{shown.p50_ms:>8.2f} {shown.p99_ms:>8.2f}"
                    )
                ratio = ratio_of(figures["engine"], figures["fastapi"])
                print(f"{name:<20} {connections:>4}  ratio   {ratio:>8.2f}", flush=True)
                if bar := BARS.get(connections):
                    key = f"{name}_{connections}_connections_ratio"
                    bars[key] = {"value": round(ratio, 3), "bar": bar, "met": ratio >= bar}
    print(json.dumps({"bars": bars}))
    return 0 if all(bar["met"] for bar in bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
