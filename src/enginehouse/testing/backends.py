"""The contract tests of a backend: subclass and provide the fixtures `backend` and `replicas`."""

from __future__ import annotations

import json
import re
import signal
import threading
from pathlib import Path

import pytest

from enginehouse.backends.base import Backend, Phase
from enginehouse.replica.processes import processes_with
from enginehouse.replica.spec import MARKER, ReplicaSpec
from enginehouse.testing.packages import make_sdist
from enginehouse.testing.replicas import (
    ReplicaFactory,
    messages,
    read_log,
    wait_for_end,
    wait_for_line,
    wait_until,
)

SLEEPER = """
    import time
    print("ready")
    time.sleep(600)
"""

FAMILY = """
    # Leaves behind: a child, a child in a session of its own, and a daemon that cut all ties, each deaf to SIGTERM.
    import os, signal, sys, time
    def child(daemon):
        if daemon:
            os.setsid()
            if os.fork():
                os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("child", os.getpid())
        time.sleep(600)
    for setsid in (False, True):
        if os.fork() == 0:
            child(setsid)
    time.sleep(0.5)
    print("ready")
"""


def leftovers(directory: Path) -> list[int]:
    """Living processes of the replica."""
    return processes_with(MARKER, str(directory))


class BackendContract:
    """What every backend does; see `backends.base`."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("subclasses give the backend under test")

    @pytest.fixture
    def replicas(self) -> ReplicaFactory:
        raise NotImplementedError("subclasses give a factory whose runtime the backend can use")

    @pytest.fixture
    def directory(self, tmp_path: Path, backend: Backend) -> Path:
        return tmp_path / "replica"

    def _run(self, backend: Backend, directory: Path, spec: ReplicaSpec) -> None:
        backend.launch(directory, spec)
        wait_for_end(backend, directory)
        backend.reap(directory)
        assert leftovers(directory) == []

    def test_absent_before_launch(self, backend: Backend, directory: Path) -> None:
        status = backend.status(directory)
        assert (status.phase, status.running_since_ns, status.outcome) == (Phase.ABSENT, None, None)

    def test_runs_the_module_with_its_arguments(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        code = """
            import json, os, sys
            print(json.dumps([sys.argv[1:], os.environ["TF_CONFIG"], __name__, os.getcwd()]))
        """
        spec = replicas.spec(code, args=["--a", "b c"], job_dir="gs://b/j", environment={"TF_CONFIG": "{}"})
        self._run(backend, directory, spec)
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.succeeded
        assert (outcome.exit_code, outcome.signal, outcome.message, outcome.traceback) == (0, None, "", "")
        assert outcome.started_ns is not None and outcome.started_ns < outcome.ended_ns
        line = next(line for line in messages(directory) if line.startswith("[["))
        arguments, tf_config, name, folder = json.loads(line)
        assert arguments == ["--a", "b c", "--job-dir", "gs://b/j"]
        assert (tf_config, name) == ("{}", "__main__")
        assert Path(folder).is_dir() or not Path(folder).exists()

    def test_phases_go_forward(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        backend.launch(directory, replicas.spec("import time; print('ready'); time.sleep(0.3)"))
        order = list(Phase)
        seen = [backend.status(directory)]
        while seen[-1].phase is not Phase.ENDED:
            seen.append(backend.status(directory))
        positions = [order.index(status.phase) for status in seen]
        assert positions == sorted(positions) and Phase.RUNNING in [status.phase for status in seen]
        for status in seen:
            assert (status.outcome is not None) == (status.phase is Phase.ENDED)
            assert (status.running_since_ns is not None) == (status.phase in (Phase.RUNNING, Phase.ENDED))

    def test_failure_has_status_and_traceback(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        self._run(backend, directory, replicas.spec("def f():\n    raise ValueError('bad rate\\nof 3')\n\nf()\n"))
        outcome = backend.status(directory).outcome
        assert outcome is not None and not outcome.succeeded
        assert (outcome.reason, outcome.exit_code, outcome.signal) == ("exited", 1, None)
        assert outcome.traceback.startswith("Traceback (most recent call last):\n  File ")
        assert outcome.traceback.endswith("ValueError: bad rate\nof 3")
        assert "trainer/task.py" in outcome.traceback.splitlines()[1]
        assert outcome.message == "The module ended with exit status 1. ValueError: bad rate"

    @pytest.mark.parametrize(
        ("code", "status"),
        [("raise SystemExit(7)", 7), ("import os; os._exit(3)", 3), ("import sys; sys.exit('no data')", 1)],
    )
    def test_exit_status(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path, code: str, status: int
    ) -> None:
        self._run(backend, directory, replicas.spec(f"print('said')\n{code}\n"))
        outcome = backend.status(directory).outcome
        assert outcome is not None and (outcome.reason, outcome.exit_code) == ("exited", status)
        assert "said" in messages(directory)

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
    def test_ended_by_a_signal(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path, number: signal.Signals
    ) -> None:
        self._run(backend, directory, replicas.spec(f"import os\nprint('said')\nos.kill(os.getpid(), {int(number)})"))
        outcome = backend.status(directory).outcome
        assert outcome is not None
        assert (outcome.reason, outcome.exit_code, outcome.signal) == ("exited", None, number)
        assert number.name in outcome.message and "said" in messages(directory)

    def test_launching_again_changes_nothing(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path, tmp_path: Path
    ) -> None:
        trace = tmp_path / "trace"
        spec = replicas.spec(f"import time\nopen({str(trace)!r}, 'a').write('x')\ntime.sleep(0.5)")
        threads = [threading.Thread(target=backend.launch, args=(directory, spec)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        backend.launch(directory, spec)
        wait_for_end(backend, directory)
        before = backend.status(directory)
        backend.launch(directory, spec)
        assert backend.status(directory) == before
        backend.reap(directory)
        assert trace.read_text() == "x"

    def test_stop_before_launch(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        backend.stop(directory, reason="Cancelled.", grace_s=1)
        backend.launch(directory, replicas.spec("print('ran')"))
        outcome = wait_for_end(backend, directory).outcome
        assert outcome is not None and (outcome.reason, outcome.message) == ("stopped", "Cancelled.")
        assert outcome.started_ns is None and "ran" not in messages(directory)

    def test_stop_right_after_launch(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        backend.launch(directory, replicas.spec(SLEEPER))
        backend.stop(directory, reason="Cancelled.", grace_s=1)
        outcome = wait_for_end(backend, directory).outcome
        assert outcome is not None and (outcome.reason, outcome.message) == ("stopped", "Cancelled.")
        backend.reap(directory)
        assert leftovers(directory) == []

    def test_stop_lets_the_module_clean_up(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        code = """
            import signal, sys, time
            def end(*_):
                print("saving")
                sys.exit(0)
            signal.signal(signal.SIGTERM, end)
            print("ready")
            time.sleep(600)
        """
        backend.launch(directory, replicas.spec(code))
        wait_for_line(directory, "ready")
        backend.stop(directory, reason="Cancelled.", grace_s=30)
        backend.stop(directory, reason="Another.", grace_s=30)
        outcome = wait_for_end(backend, directory).outcome
        assert outcome is not None
        assert (outcome.reason, outcome.exit_code, outcome.message) == ("stopped", 0, "Cancelled.")
        assert "saving" in messages(directory)

    def test_stop_ends_what_does_not_listen(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        backend.launch(directory, replicas.spec(FAMILY + "    signal.signal(15, 1)\n    time.sleep(600)\n"))
        wait_for_line(directory, "ready")
        backend.stop(directory, reason="Cancelled.", grace_s=600)
        assert backend.status(directory).phase is Phase.RUNNING
        backend.stop(directory, reason="Cancelled.", grace_s=0.2)
        outcome = wait_for_end(backend, directory).outcome
        assert outcome is not None and (outcome.reason, outcome.signal) == ("stopped", signal.SIGKILL)
        backend.reap(directory)
        assert leftovers(directory) == []

    def test_stop_after_the_end_changes_nothing(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        self._run(backend, directory, replicas.spec("print('done')"))
        before = backend.status(directory)
        backend.stop(directory, reason="Too late.", grace_s=0)
        assert backend.status(directory) == before

    def test_nothing_is_left_when_the_module_ends(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        self._run(backend, directory, replicas.spec(FAMILY, grace_s=0.2))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.succeeded
        assert len([line for line in messages(directory) if line.startswith("child ")]) == 2

    def test_missing_module_names_those_that_are_there(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        self._run(backend, directory, replicas.spec("", module="trainer.tsk"))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.reason == "exited" and outcome.exit_code == 1
        assert outcome.message == "No module named 'trainer.tsk'. The packages hold: trainer, trainer.task."

    def test_failed_import_is_told(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        self._run(backend, directory, replicas.spec("import tensorflow.contrib"))
        outcome = backend.status(directory).outcome
        assert outcome is not None
        assert outcome.message.endswith("ModuleNotFoundError: No module named 'tensorflow'")

    def test_unreadable_package(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path, tmp_path: Path
    ) -> None:
        package = tmp_path / "trainer-0.1.tar.gz"
        package.write_bytes(b"no archive")
        self._run(backend, directory, replicas.spec(packages=[package]))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.reason == "environment_failed"
        assert "trainer-0.1.tar.gz can't be read" in outcome.message and outcome.started_ns is None
        assert [record.severity for record in read_log(directory) if "can't be read" in record.message] == ["ERROR"]

    def test_unknown_runtime(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        self._run(backend, directory, replicas.spec("", runtime_version="0.1"))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.reason == "environment_failed"
        assert "There is no runtime version '0.1'" in outcome.message

    def test_memory_is_limited(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        """All processes of a replica together; none alone has more than it may."""
        code = """
            import os, time
            if os.fork():
                print("ready")
            held = bytearray(b"x") * (120 << 20)
            time.sleep(60)
        """
        self._run(backend, directory, replicas.spec(code, memory_bytes=200 << 20))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.out_of_memory, outcome
        assert (outcome.reason, outcome.exit_code, outcome.signal) == ("exited", None, signal.SIGKILL)
        used = re.fullmatch(
            r"Its processes had used up to (\d+) MiB of memory, of the 200 MiB that they may\.", outcome.message
        )
        assert used and 190 <= int(used[1]) <= 260
        assert any(line.startswith("The replica is held to 200 MiB of memory") for line in messages(directory))

    def test_what_processes_share_counts_once(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path
    ) -> None:
        code = """
            import os, time
            held = bytearray(b"x") * (120 << 20)
            if not os.fork():
                time.sleep(60)
            time.sleep(1.5)
            print("done")
        """
        self._run(backend, directory, replicas.spec(code, memory_bytes=200 << 20, grace_s=0))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.succeeded, outcome

    def test_source_distribution_and_second_package(
        self, backend: Backend, replicas: ReplicaFactory, directory: Path, tmp_path: Path
    ) -> None:
        helper = make_sdist(tmp_path / "a", {"helper/__init__.py": "VALUE = 42"}, name="helper")
        trainer = make_sdist(
            tmp_path / "b", {"trainer/task.py": "import helper; print(helper.VALUE)"}, requires=["helper>=0.1"]
        )
        self._run(backend, directory, replicas.spec(packages=[trainer, helper]))
        outcome = backend.status(directory).outcome
        assert outcome is not None and outcome.succeeded, messages(directory)
        assert "42" in messages(directory)

    def test_output_is_live(self, backend: Backend, replicas: ReplicaFactory, directory: Path) -> None:
        backend.launch(directory, replicas.spec(SLEEPER))
        wait_for_line(directory, "ready")
        assert backend.status(directory).phase is Phase.RUNNING
        backend.stop(directory, reason="Seen.", grace_s=0)
        wait_for_end(backend, directory)
        wait_until(lambda: not leftovers(directory), what="the end of all processes")
