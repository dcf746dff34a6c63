"""Custom containers that serve: health, crashes and ends, with a program in place of podman; and a whole engine."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enginehouse.cli.invocation import Invocation
from enginehouse.cli.tree import root
from enginehouse.core.errors import DeadlineExceeded, EngineError, FailedPrecondition, Internal
from enginehouse.core.names import ObjectUri, VersionName, project_number
from enginehouse.sdk.client import Client, connect
from enginehouse.serving.types import ModelLoadError, ServedContainer, ServedVersion
from enginehouse.testing.containers import FakePodman
from enginehouse.testing.engine import EngineProcess

from .conftest import running_pool, until

Run = Callable[[Any], Any]

IMAGE = "europe-docker.pkg.dev/project/repository/server:1"
# Doubles numbers; text is an order. Healthy as long as what FILE holds is 200.
SERVER = """
import http.server, json, os, pathlib, signal, sys, time

FILE = os.environ.get("HEALTH_FILE", "")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        assert self.path == os.environ["AIP_HEALTH_ROUTE"]
        self.answer(int(pathlib.Path(FILE).read_text()) if FILE else 200, {})

    def do_POST(self):
        assert self.path == os.environ["AIP_PREDICT_ROUTE"]
        [instance] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        if instance == "exit":
            os._exit(3)
        if instance == "teapot":
            return self.answer(418, {"error": "I am a teapot."})
        if instance == "variables":
            instance = {name: value for name, value in os.environ.items() if name.startswith(("AIP_", "OWN"))}
            return self.answer(200, {"predictions": [instance | {"arguments": sys.argv[1:], "pid": os.getpid()}]})
        if instance == "model":
            weights = pathlib.Path(os.environ["AIP_STORAGE_URI"], "w").read_text()
            return self.answer(200, {"predictions": [weights]})
        if instance == "slow":
            time.sleep(0.5)
        self.answer(200, {"predictions": [instance * 2]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def end(*_):
    print("ended well", flush=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
print("listens", flush=True)
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["AIP_HTTP_PORT"])), Handler).serve_forever()
"""
IMAGES = {IMAGE: {"entrypoint": [sys.executable, "-u", "-c", SERVER], "cmd": ["--own"]}}


@pytest.fixture
def podman(tmp_path: Path) -> FakePodman:
    return FakePodman(tmp_path / "podman", IMAGES)


def version(podman: FakePodman, tmp_path: Path, **more: Any) -> ServedVersion:
    told = {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}
    environment = told | more.pop("environment", {})
    container = ServedContainer(
        lambda: str(podman.path), IMAGE, **{"command": (), "args": (), **more}, environment=environment, port=8080,
        predict_route="/predict", health_route="/health", has_files=False,
    )  # fmt: skip
    return ServedVersion(VersionName("p", "m", "v"), "uid", tmp_path, "", Path(), container=container)


async def ask(pool: Any, served: ServedVersion, instance: Any) -> Any:
    status, body = await pool.predict(served, json.dumps({"instances": [instance]}).encode())
    return json.loads(body)["predictions"][0] if status == 200 else (status, json.loads(body))


def test_answers_come_back_as_they_are(run: Run, podman: FakePodman, tmp_path: Path) -> None:
    async def scenario() -> None:
        served = version(podman, tmp_path, args=("--port=$(AIP_HTTP_PORT)", "$$(NOT)"), environment={"OWN": "a=b c"})
        async with running_pool(tmp_path / "logs", grace_s=5.0) as pool:
            report = await pool.deploy(served)
            assert report.self_test.startswith("not made")
            assert await ask(pool, served, 21) == 42
            assert await ask(pool, served, "teapot") == (418, {"error": "I am a teapot."})
            told = await ask(pool, served, "variables")
            assert (told["OWN"], told["arguments"]) == ("a=b c", ["--port=8080", "$(NOT)"])
            assert pool.pids() == {"uid": told["pid"]}
            [variables] = (tmp_path / "logs").glob("*.env")
            assert variables.stat().st_mode & 0o777 == 0o600
            assert await asyncio.gather(*(ask(pool, served, number) for number in range(50))) == list(
                range(0, 100, 2)
            )
            [group] = pool.groups()
            assert group.n_answered == 53
        assert podman.containers() == []
        assert (tmp_path / "logs" / "uid.log").read_text() == "listens\nended well\n"
        [command] = podman.said("run")
        assert "a=b c" not in " ".join(command)
        assert not list((tmp_path / "logs").glob("*.env"))

    run(scenario())


def test_health_gates_readiness_and_traffic(run: Run, podman: FakePodman, tmp_path: Path) -> None:
    health = tmp_path / "health"
    health.write_text("503")
    served = version(podman, tmp_path, environment={"HEALTH_FILE": str(health)})

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs", health_every_s=0.05, predict_timeout_s=20.0, grace_s=5.0) as pool:
            deploying = asyncio.create_task(pool.deploy(served))
            await until(lambda: (tmp_path / "logs" / "uid.log").exists() and bool(podman.containers()))
            await asyncio.sleep(0.3)
            assert not deploying.done()
            health.write_text("200")
            await deploying
            assert await ask(pool, served, 1) == 2
            health.write_text("500")
            [node] = pool.groups()[0].nodes
            await until(lambda: not node._process._healthy.is_set())  # type: ignore[union-attr]
            waits = asyncio.create_task(ask(pool, served, 2))
            await asyncio.sleep(0.2)
            assert not waits.done()
            health.write_text("200")
            assert await waits == 4
            assert len(podman.said("run")) == 1

    run(scenario())


def test_never_healthy_and_ended_before(run: Run, podman: FakePodman, tmp_path: Path) -> None:
    health = tmp_path / "health"
    health.write_text("503")

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs", load_timeout_s=1.0, grace_s=5.0) as pool:
            with pytest.raises(ModelLoadError, match="never became ready"):
                await pool.deploy(version(podman, tmp_path, environment={"HEALTH_FILE": str(health)}))
            assert podman.containers() == []
        async with running_pool(tmp_path / "logs") as pool:
            command = (sys.executable, "-c", "raise SystemExit('no model here')")
            with pytest.raises(ModelLoadError, match=r"exited with code 1\. Its last words: .*no model here"):
                await pool.deploy(version(podman, tmp_path, command=command))
            assert podman.containers() == []

    run(scenario())


def test_a_crash_takes_only_its_request_down(run: Run, podman: FakePodman, tmp_path: Path) -> None:
    served = version(podman, tmp_path)

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs", grace_s=5.0) as pool:
            first = (await ask(pool, served, "variables"))["pid"]
            crashes = asyncio.create_task(ask(pool, served, "exit"))
            others = [asyncio.create_task(ask(pool, served, number)) for number in range(10)]
            assert await asyncio.gather(*others) == list(range(0, 20, 2))
            with pytest.raises(Internal, match="exited with code 3"):
                await crashes
            second = (await ask(pool, served, "variables"))["pid"]
            assert second != first
            os.kill(second, signal.SIGKILL)  # from outside: held against nobody
            assert await ask(pool, served, 4) == 8
        assert podman.containers() == []

    run(scenario())


def test_what_does_not_listen_any_more_is_replaced(run: Run, podman: FakePodman, tmp_path: Path) -> None:
    served = version(podman, tmp_path)

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs", health_every_s=0.05, grace_s=0.2) as pool:
            pid = (await ask(pool, served, "variables"))["pid"]
            [node] = pool.groups()[0].nodes
            node._process._port = 1  # type: ignore[union-attr]  # nothing listens there
            await until(lambda: not pool.pids())
            assert (await ask(pool, served, "variables"))["pid"] != pid

    run(scenario())


def test_a_request_that_takes_too_long_and_a_stop_with_one_in_flight(
    run: Run, podman: FakePodman, tmp_path: Path
) -> None:
    served = version(podman, tmp_path)

    async def scenario() -> None:
        async with running_pool(tmp_path / "logs", predict_timeout_s=0.3, grace_s=5.0) as pool:
            await pool.deploy(served)
            with pytest.raises(DeadlineExceeded):
                await ask(pool, served, "slow")
        async with running_pool(tmp_path / "logs", grace_s=5.0) as pool:
            await pool.deploy(served)
            waits = asyncio.create_task(ask(pool, served, "slow"))
            await asyncio.sleep(0.1)
            await pool.retire(served.uid)
            assert await waits == "slowslow"
        assert podman.containers() == []

    run(scenario())


def test_a_container_ends_with_its_engine(podman: FakePodman, tmp_path: Path) -> None:
    """Whoever holds the keeper's pipe may die in any way; what is deaf to SIGTERM is killed."""
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('runs', flush=True); time.sleep(60)"
    run_it = [str(podman.path), "run", "--name", "x", "--entrypoint", sys.executable, IMAGE, "-c", deaf]
    command = [sys.executable, "-m", "enginehouse.replica.keeper", str(podman.path), "x", "0.2", "x.env", *run_it]
    ends, holds = os.pipe()
    with subprocess.Popen(command, stdin=ends, stdout=subprocess.PIPE) as keeper:
        os.close(ends)
        assert keeper.stdout is not None and keeper.stdout.readline() == b"runs\n"
        os.close(holds)
        assert keeper.wait(20) == 137
    assert podman.containers() == []


# --- on an engine ---


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EngineProcess, FakePodman]]:
    folder = tmp_path_factory.mktemp("containers")
    podman = FakePodman(folder / "podman", IMAGES)
    path = os.pathsep.join([str(podman.directory), os.environ["PATH"]])
    with EngineProcess(folder / "data", {"PATH": path}) as engine:
        yield engine, podman


@pytest.fixture
def client(engine: tuple[EngineProcess, FakePodman]) -> Client:
    return connect(data_dir=engine[0].data_dir)


CONTAINER = {"image": IMAGE, "args": ["--name=$(AIP_VERSION_NAME)"], "env": [
    {"name": "OWN", "value": "$(AIP_MODE)"}, {"name": "OWN_TOO", "value": "$(OWN)!"}]}  # fmt: skip


@pytest.mark.slow
def test_a_version_with_a_container(engine: tuple[EngineProcess, FakePodman], client: Client) -> None:
    """Slow: an engine."""
    running, podman = engine
    client.storage.create_bucket("models")
    client.storage.upload(io.BytesIO(b"weights"), ObjectUri("models", "mine/w"))
    client.models.create({"name": "mine"})
    # As `gcloud beta ai-platform versions create --image … --ports … --predict-route … --origin …` sends it.
    body = {
        "name": "v1",
        "container": {**CONTAINER, "ports": [{"containerPort": 8501}]},
        "routes": {"predict": "/predict", "health": "/health"},
        "deploymentUri": "gs://models/mine",
        "machineType": "n1-standard-2",
    }
    client.operations.wait(client.versions("mine").create(body))
    told = client.versions("mine").get("v1")
    assert (told["state"], told["container"]["image"], told["routes"]["predict"]) == ("READY", IMAGE, "/predict")
    assert "framework" not in told and "runtimeVersion" not in told
    assert client.predict("mine", "v1", [4])["predictions"] == [8]
    assert client.predict("mine", None, ["model"])["predictions"] == ["weights"]
    [variables] = client.predict("mine", "v1", ["variables"])["predictions"]
    assert variables["arguments"] == ["--name=v1"]
    assert {name: value for name, value in variables.items() if name.startswith(("AIP", "OWN"))} == {
        "AIP_PROJECT": client.project,
        "AIP_PROJECT_NUMBER": str(project_number(client.project)),
        "AIP_MODEL_NAME": "mine",
        "AIP_VERSION_NAME": "v1",
        "AIP_MODE": "PREDICTION",
        "AIP_MODE_VERSION": "1.0.0",
        "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
        "AIP_MACHINE_TYPE": "n1-standard-2",
        "AIP_ACCELERATOR_TYPE": "",
        "AIP_HTTP_PORT": variables["AIP_HTTP_PORT"],  # a free one on the host, for want of a namespace
        "AIP_PREDICT_ROUTE": "/predict",
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_STORAGE_URI": variables["AIP_STORAGE_URI"],
        "OWN": "PREDICTION",
        "OWN_TOO": "PREDICTION!",
    }
    [run] = podman.said("run")
    assert f"127.0.0.1:{variables['AIP_HTTP_PORT']}:8501" in run
    assert any(word.endswith(":/mnt/model:ro") for word in run)
    request = urllib.request.Request(
        f"{running.url}/v2/models/mine/infer",
        json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}]}).encode(),
    )
    with urllib.request.urlopen(request) as answer:
        assert json.loads(answer.read())["outputs"][0]["data"] == [3.0]
    with urllib.request.urlopen(f"{running.url}/metrics") as metrics:
        assert b'enginehouse_model_server_up{project="enginehouse",model="mine",version="v1"} 1' in metrics.read()
    places = {"inputPaths": ["gs://models/mine/w"], "outputPath": "gs://models/out", "region": "us-central1"}
    job = {"jobId": "batch", "predictionInput": {"versionName": told["name"], "dataFormat": "JSON", **places}}
    with pytest.raises(FailedPrecondition, match="answers online predictions only"):
        client.jobs.create(job)
    client.operations.wait(client.versions("mine").delete("v1"))
    deadline = time.monotonic() + 20
    while podman.containers():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_defaults_flags_and_what_is_refused(engine: tuple[EngineProcess, FakePodman], client: Client) -> None:
    """Slow: an engine."""
    with contextlib.suppress(EngineError):
        client.models.create({"name": "refused"})
    versions = client.versions("refused")
    for field, change in {
        "version.container.image": {"container": {"args": ["x"]}},
        "version.container.image ": {"container": {"image": "--privileged"}},
        "version.runtime_version": {"runtimeVersion": "2.21"},
        "version.framework": {"framework": "TENSORFLOW"},
        "version.container.env": {"container": {"image": IMAGE, "env": [{"name": "AIP_MODE", "value": "x"}]}},
        "version.container.ports": {"container": {"image": IMAGE, "ports": [{"containerPort": 70000}]}},
        "version.routes.health": {"routes": {"health": "health"}},
    }.items():
        with pytest.raises(EngineError, match=f"Field: {field.strip()} Error"):
            versions.create({"name": "v1", "container": CONTAINER, **change})
    with pytest.raises(EngineError, match=r"Field: version\.routes Error"):
        versions.create({"name": "v1", "routes": {"predict": "/p"}})
    with pytest.raises(EngineError, match="is not on this machine and could not be pulled"):
        client.operations.wait(versions.create({"name": "v1", "container": {"image": "nowhere:1"}}))
    flags = ["--image", IMAGE, "--args", "--a,b", "--env-vars", "OWN=1"]
    command = ["versions", "create", "v2", "--model", "refused", *flags, "--data-dir", str(engine[0].data_dir)]
    done = CliRunner().invoke(root, command, obj=Invocation(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = versions.get("v2")
    assert told["routes"] == {
        "predict": "/v1/models/refused/versions/v2:predict",
        "health": "/v1/models/refused/versions/v2",
    }
    assert told["container"] == {
        "image": IMAGE,
        "args": ["--a", "b"],
        "env": [{"name": "OWN", "value": "1"}],
        "ports": [{"containerPort": 8080}],
    }
    assert client.predict("refused", "v2", [1])["predictions"] == [2]


@pytest.mark.slow
def test_without_an_engine_for_containers_it_is_said_what_to_install(tmp_path: Path) -> None:
    """Slow: an engine."""
    with EngineProcess(tmp_path / "data", {"ENGINEHOUSE_CONTAINER_ENGINE": "none"}) as engine:
        client = connect(data_dir=engine.data_dir)
        client.models.create({"name": "mine"})
        with pytest.raises(FailedPrecondition, match=r"Field: version\.container .*apt-get install podman"):
            client.versions("mine").create({"name": "v1", "container": CONTAINER})
