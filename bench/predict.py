"""Online prediction against other servers of the same models: `python bench/predict.py [--quick] [--peers A,B]`.

Our side is a whole engine (`mle up`) with the models deployed from a bucket, asked at its public address with its
token. Each peer (predict_peers/) gets a virtual environment of its own, cached, with the same frameworks and its best
configuration that we found; all call the model in the same quick way (predict_peers/bare_model.py).

Both sides are asked by wrk (Debian's package) with one thread, or by `predict_load.py` where there is no wrk. They
take turns, slice by slice, so that a noisy moment of the machine meets both; a figure is the median over the slices,
a ratio the median of the ratios of neighbouring slices. Answers are compared with the bare model's before and after.

The last line of stdout is one JSON object with the bars.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from enginehouse.core.names import ObjectUri
from enginehouse.core.settings import load_settings
from enginehouse.sdk.client import Client, connect
from environments import environment_python

HERE = Path(__file__).resolve().parent
PEERS_DIR = HERE / "predict_peers"
FRAMEWORKS = ("numpy", "orjson", "scikit-learn==1.9.*", "joblib", "xgboost-cpu==3.2.*", "tensorflow-cpu==2.21.*")
CONNECTIONS = (1, 16, 64)
START_TIMEOUT_S = 90.0
TOKEN = "bench-token"
FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8], [5.7, 2.8, 4.1, 1.3], [7.7, 3.0, 6.1, 2.3]] * 8
# One thread per call everywhere: with two processors, a pool of threads per call only costs.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "RAY_DEDUP_LOGS": "0"}


@dataclass(frozen=True)
class Model:
    """One of the models: how the engine is told of it."""

    framework: str
    runtime: str


MODELS = {
    "sklearn": Model("SCIKIT_LEARN", "scikit-learn-1.9"),
    "keras": Model("TENSORFLOW", "2.21"),
    "xgboost": Model("XGBOOST", "xgboost-3.2"),
}


@dataclass(frozen=True)
class Peer:
    """How to install and start a peer. `{port}` is filled in; `v2` peers speak the Open Inference Protocol."""

    requirement: str
    command: tuple[str, ...]
    v2: bool = False
    python: str = sys.executable


PEERS = {
    "fastapi": Peer(
        "fastapi uvicorn[standard]",
        ("-m", "uvicorn", "fastapi_app:app", "--port", "{port}", "--workers", "2", "--no-access-log"),
    ),
    # Its Python stub needs the shared libpython of Debian's interpreter.
    "triton": Peer("nvidia-pytriton", ("triton_server.py", "{port}"), v2=True, python="/usr/bin/python3"),
    "ray": Peer("ray[serve]", ("ray_app.py", "{port}")),
    "mlserver": Peer("mlserver", ("mlserver_model.py", "{port}"), v2=True),
    "litserve": Peer("litserve", ("litserve_app.py", "{port}")),
    "bentoml": Peer(
        "bentoml uvloop httptools", ("-m", "bentoml", "serve", "bentoml_service:Model", "--port", "{port}")
    ),
}


@dataclass(frozen=True)
class Side:
    """A running server: where it predicts, which body it wants, whose memory counts."""

    url: str
    v2: bool
    pids: tuple[int, ...]

    def body(self, rows: list[list[float]]) -> str:
        if not self.v2:
            return json.dumps({"instances": rows})
        data = [value for row in rows for value in row]
        tensor = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": data}
        return json.dumps({"inputs": [tensor]})

    def predictions(self, answer: bytes) -> list[Any]:
        """All numbers of an answer in their order."""
        value = json.loads(answer)
        value = value["outputs"][0]["data"] if self.v2 else value["predictions"]
        return [number for item in value for number in (item if isinstance(item, list) else [item])]

    def memory_mb(self) -> float:
        """Memory of the server's processes and their children that they don't share with others, in MB."""
        roots = [psutil.Process(pid) for pid in self.pids]
        processes = [each for root in roots for each in (root, *root.children(recursive=True))]
        return sum(process.memory_full_info().pss for process in processes if process.is_running()) / 1e6


@dataclass(frozen=True)
class Slice:
    """What one side showed in one slice."""

    rps: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def median(cls, slices: list[Slice]) -> Slice:
        return cls(*(statistics.median(getattr(s, name) for s in slices) for name in ("rps", "p50_ms", "p99_ms")))


def post(url: str, body: str) -> bytes:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(url, body.encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: bytes = response.read()
        return answer


def ask_for(side: Side, rows: list[list[float]], connections: int, seconds: int) -> Slice:
    """Ask one side for a while.

    Raises:
        SystemExit: a request failed.
    """
    if shutil.which("wrk"):
        environment = {**os.environ, "BENCH_BODY": side.body(rows), "BENCH_AUTHORIZATION": f"Bearer {TOKEN}"}
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
        command += ["-s", str(HERE / "predict.lua"), side.url]
        order = None
    else:
        environment, command = {**os.environ}, [sys.executable, str(HERE / "predict_load.py")]
        order = json.dumps(
            {"url": side.url, "body": side.body(rows), "token": TOKEN, "connections": connections, "seconds": seconds}
        )
    done = subprocess.run(
        command, input=order, env=environment, capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        raise SystemExit(f"load generator: {done.stderr or done.stdout}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["errors"]:
        raise SystemExit(f"{result['errors']} requests to {side.url} failed")
    return Slice(result["requests"] / result["seconds"], result["p50_ms"], result["p99_ms"])


def check(side: Side, rows: list[list[float]], expected: list[float]) -> None:
    """Compare a side's answer with the bare model's.

    Raises:
        SystemExit: it is another one.
    """
    numbers = side.predictions(post(side.url, side.body(rows)))
    if len(numbers) != len(expected) or any(abs(a - b) > 1e-4 for a, b in zip(numbers, expected, strict=True)):
        raise SystemExit(f"{side.url} gave {numbers[:6]}…, the bare model {expected[:6]}…")


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment."""
    peer = PEERS[name]
    return environment_python(name, [*peer.requirement.split(), *FRAMEWORKS], peer.python)


@contextlib.contextmanager
def running_peer(name: str, model: str, directory: Path, rows: list[list[float]]) -> Iterator[Side]:
    """A peer with one model, in a session of its own: Linux shares the processors by session."""
    peer = PEERS[name]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        **ENVIRONMENT,
        "MODEL_FRAMEWORK": MODELS[model].framework,
        "MODEL_DIRECTORY": str(directory / model),
        "MODEL_FEATURES": str(len(rows[0])),
        "PYTHONPATH": str(PEERS_DIR),
    }
    command = [str(python_of(name)), *(part.format(port=port) for part in peer.command)]
    with (directory / f"{name}-{model}.log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=PEERS_DIR, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        path = "v2/models/model/infer" if peer.v2 else "predict"
        side = Side(f"http://127.0.0.1:{port}/{path}", peer.v2, (process.pid,))
        try:
            wait_for(process, side, rows)
            yield side
        finally:
            stop_group(process)


def wait_for(process: subprocess.Popen[bytes], side: Side, rows: list[list[float]]) -> None:
    """Wait until a peer predicts.

    Raises:
        SystemExit: it does not.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            post(side.url, side.body(rows))
            return
        time.sleep(0.2)
    raise SystemExit(f"{process.args} did not start")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, also what left its group: Ray's HAProxy outlives it and keeps its ports."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@contextlib.contextmanager
def engine(directory: Path) -> Iterator[Callable[[str], Side]]:
    """Our side: `mle up` with a token. Gives what deploys a model as any client does; asked at the public port."""
    data_dir = directory / "data"
    mle = [str(Path(sys.executable).with_name("mle"))]
    options = ["--data-dir", str(data_dir)]
    up = [*mle, "up", "--detach", "--port", "0", *options]
    subprocess.run(up, check=True, stdout=sys.stderr, env={**ENVIRONMENT, "ENGINEHOUSE_TOKEN": TOKEN})
    try:
        info = json.loads((data_dir / "engine.json").read_text())
        client = connect(url=info["url"], project="bench")
        client.storage.create_bucket("bench")

        def deployed(name: str) -> Side:
            before = {child.pid for child in psutil.Process(info["pid"]).children()}
            deploy(client, name, directory / name)
            servers = {child.pid for child in psutil.Process(info["pid"]).children()} - before
            return Side(f"{info['url']}/v1/projects/bench/models/{name}:predict", False, tuple(servers))

        yield deployed
    finally:
        subprocess.run([*mle, "down", *options], check=True, stdout=sys.stderr)


def deploy(client: Client, name: str, directory: Path) -> None:
    """Make a model with one version of a directory."""
    for path in directory.rglob("*"):
        if path.is_file():
            client.storage.upload_file(path, ObjectUri("bench", f"{name}/{path.relative_to(directory)}"))
    client.models.create({"name": name})
    version = {
        "name": "v1",
        "deploymentUri": f"gs://bench/{name}/",
        "framework": MODELS[name].framework,
        "runtimeVersion": MODELS[name].runtime,
    }
    client.operations.wait(client.versions(name).create(version))


@dataclass(frozen=True)
class Reference:
    """What the bare model answers to the first flowers, by their number; and its rows/s in batches of 64."""

    expected: dict[int, list[float]]
    rows_per_s: float


def bare(python: Path, model: str, directory: Path) -> Reference:
    """Call the model without any server."""
    code = (
        "import json, sys, time, numpy as np; from bare_model import load; "
        "predict = load(sys.argv[1], sys.argv[2]); x = np.array(json.loads(sys.argv[3]), np.float32); "
        "y = predict(x); batch = np.resize(x, (64, x.shape[1])); predict(batch); n = 0; start = time.perf_counter()\n"
        "while time.perf_counter() < start + 1: predict(batch); n += 64\n"
        "print(json.dumps([np.reshape(y, (len(x), -1)).astype(float).tolist(), n / (time.perf_counter() - start)]))"
    )
    arguments = [str(python), "-c", code, MODELS[model].framework, str(directory / model), json.dumps(FLOWERS)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(PEERS_DIR)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    answers, rows_per_s = json.loads(done.stdout.splitlines()[-1])
    sizes = (1, len(FLOWERS))
    return Reference({n: [number for row in answers[:n] for number in row] for n in sizes}, rows_per_s)


def compare(
    ours: Side, theirs: Side, rows: list[list[float]], connections: int, plan: Plan
) -> tuple[Slice, Slice, float]:
    """Ask both in turn: the medians, and the median ratio of throughput."""
    pairs = [
        (ask_for(ours, rows, connections, plan.slice_s), ask_for(theirs, rows, connections, plan.slice_s))
        for _ in range(plan.rounds)
    ]
    ratio = statistics.median(our.rps / their.rps for our, their in pairs)
    return Slice.median([our for our, _ in pairs]), Slice.median([their for _, their in pairs]), ratio


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    slice_s: int
    cases: tuple[tuple[int, int], ...]


FULL = Plan(3, 2, tuple((n_rows, connections) for n_rows in (1, 32) for connections in CONNECTIONS))
QUICK = Plan(1, 1, ((1, 1), (1, 64), (32, 64)))


def bars_of(peer: str, n_rows: int, connections: int, our: Slice, their: Slice, ratio: float) -> dict[str, Any]:
    """What the figures must show, per bar its value."""
    if n_rows > 1:
        return {"ratio": (ratio, 1.0, ratio >= 1.0)} if connections == 64 else {}
    if connections == 1:
        return {"p50": (our.p50_ms, their.p50_ms, our.p50_ms <= their.p50_ms)}
    wanted = 1.0 if peer == "triton" else 2.5
    return {"ratio": (ratio, wanted, ratio >= wanted), "p99": (our.p99_ms, their.p99_ms, our.p99_ms < their.p99_ms)}


def main() -> int:
    """Measure and print; 0 when every bar is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="FastAPI alone and one short slice each, under a minute")
    parser.add_argument("--peers", help=f"some of {','.join(PEERS)}")
    parser.add_argument("--models", default=",".join(MODELS), help=f"some of {','.join(MODELS)}")
    arguments = parser.parse_args()
    peers = (arguments.peers or ("fastapi" if arguments.quick else ",".join(PEERS))).split(",")
    models = arguments.models.split(",")
    plan = QUICK if arguments.quick else FULL
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, runtimes in {load_settings().runtimes_dir}")
    bars: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        python = python_of("fastapi")
        make = [str(python), str(PEERS_DIR / "make_models.py"), str(directory)]
        subprocess.run(make, check=True, capture_output=True)
        with engine(directory) as deployed:
            print(
                f"{'model':<8} {'rows':>4} {'conn':>4}  {'side':<9} {'req/s':>8} {'p50 ms':>8} "
                f"{'p99 ms':>8} {'ratio':>6}"
            )
            for model in models:
                reference = bare(python, model, directory)
                ours = deployed(model)  # only now: what nobody asks for a while is stopped
                for peer in peers:
                    bars |= versus(peer, model, ours, directory, reference, plan)
    print(json.dumps({"bars": bars}))
    return 0 if all(bar["met"] for bar in bars.values()) else 1


def versus(peer: str, model: str, ours: Side, directory: Path, reference: Reference, plan: Plan) -> dict[str, Any]:
    """One model, the engine against one peer: prints the figures, returns the bars."""
    bars = {}
    with running_peer(peer, model, directory, FLOWERS) as theirs:
        for n_rows, connections in plan.cases:
            rows = FLOWERS[:n_rows]
            expected = reference.expected[n_rows]
            limit = reference.rows_per_s
            for side in (ours, theirs):
                check(side, rows, expected)
            our, their, ratio = compare(ours, theirs, rows, connections, plan)
            for side in (ours, theirs):
                check(side, rows, expected)
            head = f"{model:<8} {n_rows:>4} {connections:>4}"
            print(
                f"{head}  {'engine':<9} {our.rps:>8.0f} {our.p50_ms:>8.2f} {our.p99_ms:>8.2f} {ratio:>6.2f}"
                f"  {our.rps * n_rows / limit:.0%} of the bare model"
            )
            print(f"{head}  {peer:<9} {their.rps:>8.0f} {their.p50_ms:>8.2f} {their.p99_ms:>8.2f}", flush=True)
            for bar, (value, wanted, met) in bars_of(peer, n_rows, connections, our, their, ratio).items():
                key = f"{model}_{n_rows}_rows_{connections}_connections_{bar}_vs_{peer}"
                bars[key] = {"value": round(value, 3), "bar": round(wanted, 3), "met": met}
        memory = ours.memory_mb(), theirs.memory_mb()
    print(f"{model:<8} memory: engine's server {memory[0]:.0f} MB, {peer} {memory[1]:.0f} MB", flush=True)
    bars[f"{model}_memory_vs_{peer}"] = {
        "value": round(memory[0] / memory[1], 3),
        "bar": 1.2,
        "met": memory[0] <= 1.2 * memory[1],
    }
    return bars


if __name__ == "__main__":
    sys.exit(main())
