"""`mle local train`. The runtime is this interpreter's own environment; real ones are built elsewhere."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enginehouse.cli.local import newest_runtime
from enginehouse.runtimes.cache import Environment, RuntimeCache
from enginehouse.runtimes.catalogue import Catalogue, Runtime

Mle = Callable[..., Any]
TRAINER = """\
import json, os, sys
import trainer
print(json.dumps({
    "args": sys.argv[1:],
    "file": trainer.__file__,
    "cwd": os.getcwd(),
    "tf_config": json.loads(os.environ["TF_CONFIG"]),
    "cloud_ml": {k: v for k, v in os.environ.items() if k.startswith("CLOUD_ML_")},
    "emulator": os.environ.get("STORAGE_EMULATOR_HOST"),
    "ours": [k for k in os.environ if k.startswith("ENGINEHOUSE_")],
}))
if "--fail" in sys.argv:
    sys.exit(3)
if "--die" in sys.argv:
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def here(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The project's folder as the current one, and a runtime that needs no building."""
    (package / "task.py").write_text(TRAINER)
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("ENGINEHOUSE_RUNTIMES_DIR", str(tmp_path / "runtimes"))
    runtime = Environment("key", Path(sys.prefix), "2.21", "3.11", {})
    monkeypatch.setattr(RuntimeCache, "ensure", lambda *_: runtime)
    return package.parent


def told(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    return dict(json.loads(result.out))


def test_arguments_variables_and_place(mle: Mle, here: Path) -> None:
    arguments = ("--module-name", "trainer.task", "--package-path", "trainer/", "--job-dir", "out")
    result = told(mle("local", "train", *arguments, "--", "--x", "1"))
    assert result["args"] == ["--x", "1", "--job-dir", "out"]
    assert result["cwd"] == str(here)
    assert "overlays" in result["file"], "imported from the installed package, not from the folder"
    assert result["tf_config"]["environment"] == "cloud"
    assert result["tf_config"]["cluster"] == {"chief": ["127.0.0.1:2222"]}
    assert result["tf_config"]["job"]["python_module"] == "trainer.task"
    assert result["cloud_ml"] == {"CLOUD_ML_JOB_ID": "local_train", "CLOUD_ML_PROJECT_ID": "enginehouse"}
    assert result["emulator"] is None, "no engine is running"
    assert result["ours"] == []


def test_the_package_is_found_by_the_modules_name(mle: Mle, here: Path) -> None:
    assert told(mle("local", "train", "--module-name", "trainer.task"))["args"] == []


def test_buckets_of_a_running_engine(mle: Mle, here: Path) -> None:
    result = told(mle("local", "train", "--module-name", "trainer.task", "--url", "http://127.0.0.1:9"))
    assert result["emulator"] == "http://127.0.0.1:9"


@pytest.mark.parametrize(("flag", "code"), [("--fail", 3), ("--die", 137)])
def test_it_exits_as_the_trainer_does(mle: Mle, here: Path, flag: str, code: int) -> None:
    assert mle("local", "train", "--module-name", "trainer.task", "--", flag).code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--module-name", "trainer.tsk"], "there is no trainer/tsk.py"),
        (["--module-name", "other.task"], "--package-path other: there is no such folder"),
        (["--module-name", "trainer.task", "--runtime-version", "0.1"], "There is no runtime version '0.1'"),
        (["--module-name", "trainer.task", "--packages", "x.whl"], "--packages x.whl: there is no such file"),
    ],
)
def test_refusals(mle: Mle, here: Path, arguments: list[str], message: str) -> None:
    result = mle("local", "train", *arguments)
    assert result.code == 1
    assert message in result.err


def test_a_package_that_can_not_be_installed(mle: Mle, here: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-1.0.tar.gz"
    broken.write_bytes(b"not an archive")
    result = mle("local", "train", "--module-name", "trainer.task", "--packages", broken)
    assert result.code == 1
    assert "FAILED_PRECONDITION" in result.err
    assert "broken-1.0.tar.gz" in result.err


def start_mle(here: Path, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """`mle local train` as a process with a session of its own, as in a terminal."""
    script = (
        "import sys; from pathlib import Path; from enginehouse.runtimes.cache import Environment, RuntimeCache\n"
        "RuntimeCache.ensure = lambda *_: Environment('key', Path(sys.prefix), '2.21', '3.11', {})\n"
        "from enginehouse.cli.main import main; sys.argv[0] = 'mle'; main()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, "local", "train", "--module-name", "trainer.task", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=here,
        env={**os.environ, "ENGINEHOUSE_RUNTIMES_DIR": str(tmp_path / "runtimes")},
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_is_the_trainers_to_handle(here: Path, tmp_path: Path) -> None:
    """The trainer catches it, saves its work and ends with a status of its own, which is passed on."""
    (here / "trainer" / "task.py").write_text(
        "import time\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('saved'); raise SystemExit(7)\n"
    )
    process = start_mle(here, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("saved\n", 7)


CLUSTER_TRAINER = """\
import json, os, pathlib, sys, time
config = json.loads(os.environ["TF_CONFIG"])
task = config["task"]["type"]
print(json.dumps([sys.argv[1:], config["cluster"], task, os.environ.get("RANK")]), flush=True)
pathlib.Path("here-%s-%d" % (task, config["task"]["index"])).touch()
if task == "worker" and "--fail" in sys.argv:
    print("no data", file=sys.stderr)
    sys.exit(4)
if task == "chief" and not {"--fail", "--wait"} & set(sys.argv):
    while len(list(pathlib.Path().glob("here-*"))) < 5:
        time.sleep(0.05)
else:
    time.sleep(600)
"""


def first_port() -> int:
    """The first of some free ports in a row, most likely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 60_000) - 10_000


def test_a_cluster_ends_with_its_master(mle: Mle, here: Path) -> None:
    (here / "trainer" / "task.py").write_text(CLUSTER_TRAINER)
    port = first_port()
    shape = ("--worker-count", "1", "--evaluator-count", "1", "--start-port", str(port))
    result = mle("local", "train", "--module-name", "trainer.task", "--distributed", *shape, "--", "--x")
    assert result.code == 0, result.err
    lines = dict(line.split(": ", 1) for line in result.out.splitlines())
    cluster = {
        "chief": [f"127.0.0.1:{port}"],
        "worker": [f"127.0.0.1:{port + 3}"],
        "ps": [f"127.0.0.1:{port + 1}", f"127.0.0.1:{port + 2}"],
    }
    assert {task: json.loads(text) for task, text in lines.items()} == {
        "master-replica-0": [["--x"], cluster, "chief", "0"],
        "worker-replica-0": [["--x"], cluster, "worker", "1"],
        "ps-replica-0": [["--x"], cluster, "ps", None],
        "ps-replica-1": [["--x"], cluster, "ps", None],
        "evaluator-replica-0": [["--x"], cluster, "evaluator", None],
    }


def test_a_replica_that_fails_ends_the_cluster(mle: Mle, here: Path) -> None:
    (here / "trainer" / "task.py").write_text(CLUSTER_TRAINER)
    arguments = ("--module-name", "trainer.task", "--distributed", "--worker-count", "1")
    result = mle("local", "train", *arguments, "--start-port", str(first_port()), "--", "--fail")
    assert result.code == 4
    assert "worker-replica-0: no data" in result.err
    assert "The replica worker-replica-0 ended with exit status 4; ending the others." in result.err


def test_a_port_that_is_taken_is_told(mle: Mle, here: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        result = mle("local", "train", "--module-name", "trainer.task", "--distributed", "--start-port", str(port))
    assert result.code == 1
    assert f"The port {port} is taken" in result.err and "--start-port" in result.err


def test_ctrl_c_ends_the_whole_cluster(here: Path, tmp_path: Path) -> None:
    (here / "trainer" / "task.py").write_text(CLUSTER_TRAINER)
    arguments = ["--distributed", "--worker-count", "0", "--parameter-server-count", "1"]
    process = start_mle(here, tmp_path, *arguments, "--start-port", str(first_port()), "--", "--wait")
    assert process.stdout is not None
    for _ in range(2):
        assert "replica-0: [" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Ending all replicas." in err
    packages = f"{tmp_path}/runtimes".encode()  # on the path of the replicas
    assert packages not in b"".join(map(read, Path("/proc").glob("[0-9]*/environ")))


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_counts_without_distributed_mean_nothing(mle: Mle, here: Path) -> None:
    result = mle("local", "train", "--module-name", "trainer.task", "--worker-count", "3")
    assert told(result)["tf_config"]["cluster"] == {"chief": ["127.0.0.1:2222"]}
    assert "give --distributed, too" in result.err


def test_the_newest_runtime_is_by_number_not_by_text() -> None:
    def runtime(name: str, framework: str) -> Runtime:
        return SimpleNamespace(name=name, frameworks={framework: "1"})  # type: ignore[return-value]

    catalogue = Catalogue.__new__(Catalogue)
    rows = [runtime("2.9", "TENSORFLOW"), runtime("2.21", "TENSORFLOW"), runtime("scikit-learn-9", "SCIKIT_LEARN")]
    catalogue.runtimes = lambda: rows  # type: ignore[method-assign]
    assert newest_runtime(catalogue) == "2.21"
