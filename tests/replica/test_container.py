"""Replicas in containers. Without an engine: a program in its place, which runs the commands on the host."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from enginehouse.backends.base import Phase
from enginehouse.backends.local import ContainerEngines, LocalBackend
from enginehouse.core.errors import FailedPrecondition
from enginehouse.replica.container import container_name
from enginehouse.replica.spec import ContainerSpec, Mount, Outcome, ReplicaSpec
from enginehouse.testing.containers import FakePodman
from enginehouse.testing.replicas import messages, read_log, wait_for_end, wait_for_line, wait_until

PRINT = "import json, os, sys; print(json.dumps([sys.argv[1:], sorted(os.environ)]))"


@pytest.fixture
def podman(tmp_path: Path) -> FakePodman:
    images = {
        "trainer": {"entrypoint": [sys.executable, "-c", PRINT], "cmd": ["--own", "1"]},
        "broken": {"entrypoint": ["/no/such/program"]},
    }
    return FakePodman(tmp_path / "podman", images)


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "replica"


def make_spec(podman: FakePodman, image: str = "trainer", *command: str, **more: object) -> ReplicaSpec:
    spec = ReplicaSpec(
        task_name="master-replica-0",
        module="",
        args=(),
        job_dir=None,
        environment={"TF_CONFIG": "{}", "SECRET": "s3cret"},
        packages=(),
        runtime_version="",
        python_version="",
        runtimes_dir="",
        uv="",
        grace_s=2.0,
        container=ContainerSpec(str(podman.path), image, command),
    )
    return replace(spec, **more)  # type: ignore[arg-type]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def run(backend: LocalBackend, directory: Path, spec: ReplicaSpec) -> Outcome:
    backend.launch(directory, spec)
    outcome = wait_for_end(backend, directory).outcome
    backend.reap(directory)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize(
    ("command", "args", "job_dir", "expected"),
    [
        ((), (), None, ["--own", "1"]),
        ((), (), "gs://b/j", ["--own", "1", "--job-dir", "gs://b/j"]),
        ((), ("--a", "b c"), None, ["--a", "b c"]),
        ((), ("--a", "b c"), "gs://b/j", ["--a", "b c", "--job-dir", "gs://b/j"]),
        (python(PRINT), (), None, []),
        (python(PRINT), ("--a",), "gs://b/j", ["--a", "--job-dir", "gs://b/j"]),
        (python(PRINT), ("$(TF_CONFIG)", "$$(TF_CONFIG) $(NO)"), None, ["{}", "$(TF_CONFIG) $(NO)"]),
        (python(PRINT.replace("sys.argv[1:]", "'$(TF_CONFIG)'")), (), None, "{}"),
    ],
)
def test_command_and_arguments_follow_kubernetes(
    podman: FakePodman,
    backend: LocalBackend,
    directory: Path,
    command: tuple[str, ...],
    args: tuple[str, ...],
    job_dir: str | None,
    expected: list[str] | str,
) -> None:
    outcome = run(backend, directory, make_spec(podman, "trainer", *command, args=args, job_dir=job_dir))
    assert outcome.succeeded, messages(directory)
    arguments, variables = json.loads(next(line for line in messages(directory) if line.startswith("[")))
    assert arguments == expected
    assert set(variables) - {"LC_CTYPE"} == {"TF_CONFIG", "SECRET", "PATH", "ENGINEHOUSE_REPLICA"}
    assert podman.containers() == []


def test_the_engine_is_told_all_but_secrets(
    podman: FakePodman, backend: LocalBackend, directory: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    (own / "deep").mkdir(parents=True)
    (own / "deep" / "token").write_text("t")
    (own / "deep" / "token").chmod(0o600)
    shared = tmp_path / "shared"
    shared.mkdir()
    spec = make_spec(podman, memory_bytes=1 << 30, cpus=1.5)
    spec = replace(spec, environment={**spec.environment, "CUDA_VISIBLE_DEVICES": "GPU-a"})
    assert spec.container is not None
    mounts = (
        Mount("/etc/hostname", "/host"),
        Mount(str(own), "/x/own", "copy"),
        Mount(str(shared), "/shared", "write"),
    )
    spec = replace(spec, container=replace(spec.container, mounts=mounts))
    assert ReplicaSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert run(backend, directory, spec).succeeded
    copy = directory / "mounted" / "x-own"
    [said] = podman.said("run")
    assert said == [
        *["run", "--name", container_name(directory), "--network", "host", "--log-driver", "none"],
        *["--env", "CUDA_VISIBLE_DEVICES", "--env", "ENGINEHOUSE_REPLICA", "--env", "SECRET", "--env", "TF_CONFIG"],
        *["--volume", "/etc/hostname:/host:ro", "--volume", f"{copy}:/x/own", "--volume", f"{shared}:/shared"],
        *["--memory", "1073741824b", "--cpus", "1.5", "--device", "nvidia.com/gpu=all", "trainer"],
    ]
    assert (copy / "deep" / "token").stat().st_mode & 0o777 == 0o666
    assert shared.stat().st_mode & 0o777 == 0o777
    assert directory.stat().st_mode & 0o777 == 0o700
    assert not any("s3cret" in line for line in messages(directory))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGABRT, 134), (signal.SIGSEGV, 139), (signal.SIGKILL, 137)])
def test_signals_are_told_as_engines_tell_them(
    podman: FakePodman, backend: LocalBackend, directory: Path, number: int, status: int
) -> None:
    code = f"import os; os.kill(os.getpid(), {int(number)})"
    outcome = run(backend, directory, make_spec(podman, "trainer", *python(code)))
    assert (outcome.reason, outcome.exit_code, outcome.out_of_memory) == ("exited", status, False)
    assert outcome.message == f"The container ended with exit status {status}."


def test_tracebacks_and_severities(podman: FakePodman, backend: LocalBackend, directory: Path) -> None:
    outcome = run(backend, directory, make_spec(podman, "trainer", *python("raise ValueError('no data')")))
    assert outcome.exit_code == 1 and outcome.traceback.endswith("ValueError: no data")
    records = [(record.severity, record.message) for record in read_log(directory)]
    assert records[-2:] == [
        ("ERROR", "The container ended with exit status 1. ValueError: no data"),
        ("INFO", "Clean up finished."),
    ]


def test_out_of_memory(podman: FakePodman, backend: LocalBackend, directory: Path) -> None:
    podman.run_out_of_memory()
    code = "import os; os.kill(os.getpid(), 9)"
    outcome = run(backend, directory, make_spec(podman, "trainer", *python(code), memory_bytes=64 << 20))
    assert outcome.out_of_memory and outcome.message == "It may use 64 MiB of memory."


def test_an_image_that_is_nowhere(podman: FakePodman, backend: LocalBackend, directory: Path) -> None:
    outcome = run(backend, directory, make_spec(podman, "gcr.io/p/missing"))
    assert outcome.reason == "environment_failed"
    assert outcome.message == (
        "The image gcr.io/p/missing is not on this machine and could not be pulled: Error: initializing source: name "
        "unknown: gcr.io/p/missing"
    )


def test_a_command_that_is_not_there(podman: FakePodman, backend: LocalBackend, directory: Path) -> None:
    outcome = run(backend, directory, make_spec(podman, "broken"))
    assert outcome.reason == "environment_failed" and podman.containers() == []
    assert outcome.message.startswith("The container could not be started: Error: crun: executable file")


def test_stop_lets_it_clean_up(podman: FakePodman, backend: LocalBackend, directory: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (print('saving', flush=True), sys.exit(0)))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    backend.launch(directory, make_spec(podman, "trainer", *python(code)))
    wait_for_line(directory, "ready")
    backend.stop(directory, reason="Cancelled.", grace_s=30)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and (outcome.reason, outcome.exit_code) == ("stopped", 0)
    assert "saving" in messages(directory) and podman.containers() == []


@pytest.mark.parametrize("kill_runner", [False, True])
def test_nothing_is_left(podman: FakePodman, backend: LocalBackend, directory: Path, kill_runner: bool) -> None:
    """A container is no child of the runner: what is deaf, or has lost its runner, is found by its name."""
    code = "import os, signal, time; signal.signal(15, 1); print('pid', os.getpid(), flush=True); time.sleep(600)"
    backend.launch(directory, make_spec(podman, "trainer", *python(code)))
    wait_until(lambda: any(line.startswith("pid ") for line in messages(directory)), what="the container")
    pid = int(next(line for line in messages(directory) if line.startswith("pid ")).split()[1])
    if kill_runner:
        os.kill(json.loads((directory / "runner.json").read_bytes())["pid"], signal.SIGKILL)
    else:
        backend.stop(directory, reason="Cancelled.", grace_s=0.2)
    outcome = wait_for_end(backend, directory).outcome
    backend.reap(directory)
    assert outcome is not None and outcome.reason == ("lost" if kill_runner else "stopped")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the container")
    assert podman.containers() == [] and backend.status(directory).phase is Phase.ENDED


def test_an_engine_is_found_or_its_lack_explained(
    podman: FakePodman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmp_path / "bin"
    tmp_path.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedPrecondition, match=r"podman: not installed; docker: not installed.*apt-get install"):
        ContainerEngines().find()
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho \'{"ServerErrors": ["Cannot connect to the Docker daemon"]}\'\n')
    docker.chmod(0o755)
    with pytest.raises(FailedPrecondition, match="docker: Cannot connect to the Docker daemon"):
        ContainerEngines().find()
    with pytest.raises(FailedPrecondition, match="switched off"):
        ContainerEngines("none").find()
    assert ContainerEngines(str(podman.path)).find() == str(podman.path)
    shutil.copy(podman.path, tmp_path / "podman")
    assert ContainerEngines().find() == str(tmp_path / "podman")
