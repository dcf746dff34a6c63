"""The runner as a process, seen through its files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enginehouse.backends.local import LocalBackend
from enginehouse.core.files import atomic_write_json, is_locked
from enginehouse.replica import __main__ as runner_main
from enginehouse.replica import spec as names
from enginehouse.replica.environment import user_variables
from enginehouse.replica.spec import Outcome, ReplicaSpec
from enginehouse.testing.packages import make_wheel
from enginehouse.testing.replicas import ReplicaFactory, messages, read_log, wait_for_end, wait_for_line, wait_until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "replica"


def run(directory: Path, spec: ReplicaSpec) -> Outcome:
    """Run a replica to its end by the runner alone, in the foreground."""
    directory.mkdir(exist_ok=True)
    atomic_write_json(directory / names.SPEC_FILE, spec.to_json())
    status, said = run_again(directory)
    assert (status, said) == (0, "")
    return Outcome.from_json(json.loads((directory / names.OUTCOME_FILE).read_bytes()))


def run_again(directory: Path) -> tuple[int, str]:
    command = [sys.executable, "-I", "-S", runner_main.__file__, str(directory)]
    answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    return answer.returncode, answer.stdout + answer.stderr


def test_log_has_the_services_lines_in_their_order(replicas: ReplicaFactory, directory: Path) -> None:
    config = {"cluster": {}, "task": {"type": "chief", "index": 0}, "job": {"region": "r"}, "environment": "cloud"}
    run(directory, replicas.spec("print('warm')"))  # the runtime is built now
    (directory / names.LOG_FILE).unlink()
    other = directory.with_name("other")
    spec = replicas.spec(
        "print('hello')", args=["--a", "b c"], job_dir="gs://b/j", environment={"TF_CONFIG": json.dumps(config)}
    )
    assert run(other, spec).succeeded
    lines = messages(other)
    uri = spec.packages[0].uri
    assert (
        lines[0]
        == 'Running task with arguments: --cluster={} --task={"type": "chief", "index": 0} --job={"region": "r"}'
    )
    assert lines[1:3] == ["Running module trainer.task.", f"Downloading the package: {uri}"]
    assert lines[3].startswith("Using runtime light-1.0 with Python 3.")
    assert lines[4:] == [
        f"Installing the package: {uri}",
        "Successfully installed trainer-0.1",
        "Running command: python3 -m trainer.task --a 'b c' --job-dir gs://b/j",
        "hello",
        "Module completed; cleaning up.",
        "Clean up finished.",
        "Task completed successfully.",
    ]
    assert {record.severity for record in read_log(other)} == {"INFO"}


def test_failure_is_told_before_the_clean_up_ends(replicas: ReplicaFactory, directory: Path) -> None:
    outcome = run(directory, replicas.spec("import sys\nprint('to stderr', file=sys.stderr)\nsys.exit(3)"))
    assert (outcome.exit_code, outcome.message) == (3, "The module ended with exit status 3.")
    tail = [(record.severity, record.message) for record in read_log(directory)][-4:]
    assert tail == [
        ("ERROR", "to stderr"),
        ("INFO", "Module completed; cleaning up."),
        ("ERROR", "The module ended with exit status 3."),
        ("INFO", "Clean up finished."),
    ]


def test_many_lines_arrive_whole_and_in_order(replicas: ReplicaFactory, directory: Path) -> None:
    code = """
        import os
        for count in range(200_000):
            print("line", count)
        os.write(1, b"the last words, without a newline")
    """
    assert run(directory, replicas.spec(code)).succeeded
    lines = messages(directory)
    first = lines.index("line 0")
    assert lines[first : first + 200_000] == [f"line {count}" for count in range(200_000)]
    assert lines[first + 200_000] == "the last words, without a newline"


def test_output_of_a_crash_is_not_lost(replicas: ReplicaFactory, directory: Path) -> None:
    code = """
        import os, signal, sys
        for count in range(20_000):
            print("line", count)
        sys.stderr.write("last words")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    outcome = run(directory, replicas.spec(code))
    assert outcome.signal == signal.SIGKILL and "memory" in outcome.message
    lines = messages(directory)
    assert "line 19999" in lines and "last words" in lines


def test_odd_output(replicas: ReplicaFactory, directory: Path) -> None:
    code = r"""
        import os, sys
        os.write(1, b"caf\xe9 \xff\n")
        print("x" * (5 * 1024 * 1024))
        for percent in range(1001):
            sys.stderr.write("\r%d%%|%s" % (percent / 10, "#" * (percent // 50)))
        sys.stderr.write("\n")
        print("end")
    """
    assert run(directory, replicas.spec(code)).succeeded
    records = read_log(directory)
    assert "caf\ufffd \ufffd" in [record.message for record in records]
    assert sum(record.message.count("x") for record in records if set(record.message) == {"x"}) == 5 * 1024 * 1024
    assert ("INFO", "100%|" + "#" * 20) in [(record.severity, record.message) for record in records]
    assert len(records) < 60


def test_traceback_of_another_python_is_found(replicas: ReplicaFactory, directory: Path) -> None:
    code = """
        import subprocess, sys
        sys.exit(subprocess.call([sys.executable, "-c", "def f():\\n  return {}['a']\\nf()"]))
    """
    outcome = run(directory, replicas.spec(code))
    assert outcome.exit_code == 1 and outcome.message.endswith("KeyError: 'a'")
    assert outcome.traceback.startswith("Traceback (most recent call last):\n")
    assert outcome.traceback in messages(directory)


def test_second_runner_does_not_run_user_code_again(
    replicas: ReplicaFactory, directory: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    spec = replicas.spec(f"open({str(trace)!r}, 'a').write('x')")
    first = run(directory, spec)
    assert run_again(directory) == (0, "")
    (directory / names.OUTCOME_FILE).unlink()  # as if the host had gone down before it was written
    assert run(directory, spec).reason == "lost"
    assert first.succeeded and trace.read_text() == "x"


def test_stop_request_that_was_there_first(replicas: ReplicaFactory, directory: Path) -> None:
    directory.mkdir()
    atomic_write_json(directory / names.STOP_FILE, {"reason": "No.", "grace_s": 1.0, "requested_ns": 1})
    outcome = run(directory, replicas.spec("print('ran')"))
    assert (outcome.reason, outcome.message, outcome.started_ns) == ("stopped", "No.", None)
    assert not (directory / names.STARTED_FILE).exists()


def test_package_that_needs_the_network_tells_of_it(
    replicas: ReplicaFactory, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path, {"trainer/task.py": ""}, requires=["no-such-package-anywhere>=1"])
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    outcome = run(directory, replicas.spec(packages=[wheel]))
    assert outcome.reason == "environment_failed"
    assert "Installing what the packages need (no-such-package-anywhere>=1) failed" in outcome.message
    assert "The package index could not be reached" in outcome.message


def test_stop_while_the_environment_is_built(replicas: ReplicaFactory, directory: Path, tmp_path: Path) -> None:
    # A runtime whose "uv" never comes to an end, and starts a process of its own.
    fake_uv = tmp_path / "uv"
    fake_uv.write_text("#!/bin/sh\nsleep 600 &\nsleep 600\n")
    fake_uv.chmod(0o755)
    base = replicas.spec("")
    spec = ReplicaSpec(**{**vars(base), "uv": str(fake_uv), "runtimes_dir": str(tmp_path / "empty")})
    backend = LocalBackend()
    backend.launch(directory, spec)
    wait_for_line(directory, "Building runtime")
    began = time.monotonic()
    backend.stop(directory, reason="Cancelled.", grace_s=60)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and (outcome.reason, outcome.message) == ("stopped", "Cancelled.")
    assert time.monotonic() - began < 5
    backend.reap(directory)
    assert list((tmp_path / "empty").glob(".building-*")) == []


def test_signal_without_a_request_is_a_lost_replica(replicas: ReplicaFactory, directory: Path) -> None:
    backend = LocalBackend()
    backend.launch(directory, replicas.spec("import time\nprint('ready')\ntime.sleep(600)"))
    wait_for_line(directory, "ready")
    os.kill(json.loads((directory / names.RUNNER_FILE).read_bytes())["pid"], signal.SIGTERM)
    outcome = wait_for_end(backend, directory).outcome
    assert outcome is not None and (outcome.reason, outcome.signal) == ("lost", signal.SIGTERM)
    assert "SIGTERM" in outcome.message


def test_full_disk_ends_the_log_not_the_job(replicas: ReplicaFactory, directory: Path, tmp_path: Path) -> None:
    """A file size limit stands for the full disk: it gives the same short writes and errors."""
    done = tmp_path / "done"
    code = f"""
        import resource, signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for count in range(20_000):
            print("line", count)
        open({str(done)!r}, "w").write("x")
    """
    directory.mkdir()
    atomic_write_json(directory / names.SPEC_FILE, replicas.spec(code).to_json())
    run(tmp_path / "warm", replicas.spec("print('the runtime is built')"))
    limited = (
        "import resource, signal, sys, runpy\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        f"sys.argv = [{runner_main.__file__!r}, {str(directory)!r}]\n"
        f"runpy.run_path({runner_main.__file__!r}, run_name='__main__')\n"
    )
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", limited], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and "The log could not be written: [Errno 27]" in answer.stderr
    outcome = Outcome.from_json(json.loads((directory / names.OUTCOME_FILE).read_bytes()))
    assert outcome.succeeded and done.read_text() == "x"
    lines = [line for line in messages(directory) if line.startswith("line ")]
    assert lines == [f"line {count}" for count in range(len(lines))] and 1000 < len(lines) < 20_000


def test_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("")
    status, said = run_again(target)
    assert status == 1 and "could not go on" in said and str(target) in said


def test_runner_starts_without_site_packages_and_quickly(directory: Path) -> None:
    directory.mkdir()
    atomic_write_json(directory / names.OUTCOME_FILE, {})
    took_s = []
    for _ in range(5):
        began = time.monotonic()
        assert run_again(directory) == (0, "")
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 0.5  # of the order of 0.06 on a quiet machine
    root = str(Path(runner_main.__file__).parents[2])
    code = f"import sys; sys.path.append({root!r}); import enginehouse.replica.runner; print(sorted(sys.modules))"
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"psutil", "orjson", "sqlalchemy", "starlette", "logging", "asyncio"} & set(eval(answer.stdout))


def test_variables_of_the_user_process(replicas: ReplicaFactory, tmp_path: Path) -> None:
    host = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "PYTHONPATH": "/engine",
        "PYTHONHOME": "/x",
        "VIRTUAL_ENV": "/v",
        "ENGINEHOUSE_TOKEN": "secret",
        "https_proxy": "http://p",
    }
    spec = replicas.spec(environment={"TF_CONFIG": "{}", "PYTHONHASHSEED": "0", "ENGINEHOUSE_URL": "http://e"})
    variables = user_variables(spec, tmp_path, Path("/rt"), Path("/ov/site"), host)
    assert variables == {
        "PATH": "/ov/site/bin:/rt/bin:/bin",
        "HOME": "/home/me",
        "https_proxy": "http://p",
        "TF_CONFIG": "{}",
        "PYTHONHASHSEED": "0",
        "ENGINEHOUSE_URL": "http://e",
        "PYTHONPATH": f"/ov/site:{tmp_path}/lib",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "ENGINEHOUSE_OVERLAY": "/ov/site",
        names.MARKER: str(tmp_path),
    }


def test_nothing_of_the_runner_is_inherited(replicas: ReplicaFactory, directory: Path) -> None:
    code = """
        import json, os, signal
        ignored = [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) == signal.SIG_IGN]
        blocked = [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        print(json.dumps([sorted(os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)), ignored, blocked,
                          [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
                           and os.path.exists(f"/proc/self/fd/{n}")], os.getpgrp() == os.getpid()]))
    """
    backend = LocalBackend()
    backend.launch(directory, replicas.spec(code))
    wait_for_end(backend, directory)
    line = next(line for line in messages(directory) if line.startswith("[["))
    standard, ignored, blocked, others, leads_its_group = json.loads(line)
    assert standard[0] == "/dev/null" and all(name.startswith("pipe:") for name in standard[1:])
    assert set(ignored) <= {signal.SIGPIPE, signal.SIGXFSZ} and blocked == [] and leads_its_group
    assert [name for name in others if not name.startswith(("pipe:", "/proc/"))] == []
    wait_until(lambda: not is_locked(directory / names.LOCK_FILE), what="the runner's end")
