"""Replicas that are forked from interpreters that wait: they do what fresh ones do, and nobody's end is another's."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enginehouse.backends.base import Phase
from enginehouse.backends.local import LocalBackend
from enginehouse.backends.local import warm as warm_module
from enginehouse.backends.local.warm import Limits, WarmPool
from enginehouse.replica.ahead import PLACEHOLDER
from enginehouse.replica.environment import Prepared
from enginehouse.replica.processes import all_processes, process_info, processes_with
from enginehouse.replica.spec import MARKER, ReplicaSpec
from enginehouse.replica.warm import WarmInterpreter, source_fault
from enginehouse.testing.backends import BackendContract
from enginehouse.testing.packages import make_wheel
from enginehouse.testing.replicas import ReplicaFactory, messages, wait_for_end, wait_for_line, wait_until

LIMITS = Limits(count=2, memory_bytes=1 << 30, idle_s=600)

STATE = """
import json, os, resource, signal, sys, threading
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("STATE " + json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv[1:], "path": sys.path, "executable": sys.executable,
    "variables": dict(os.environ), "cwd": os.getcwd(), "flags": str(sys.flags), "umask": os.umask(0),
    "descriptors": {fd: os.readlink("/proc/self/fd/" + fd).split(":")[0] for fd in os.listdir("/proc/self/fd")
                    if os.path.exists("/proc/self/fd/" + fd)},
    "signals": [status[name].strip() for name in ("SigBlk", "SigIgn", "SigCgt")],
    "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "limits": [resource.getrlimit(number) for number in range(16)], "nice": os.nice(0),
    "streams": [(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.isatty(), s.seekable())
                for s in (sys.stdin, sys.stdout, sys.stderr)],
    "leads_group": os.getpgid(0) == os.getpid(), "session": os.getsid(0) == os.getppid(),
    "command": open("/proc/self/cmdline").read().rstrip(chr(0)).split(chr(0)),
    "told_variables": sorted(set(open("/proc/self/environ").read().split(chr(0)))),
    "threads": threading.active_count(), "main": threading.current_thread() is threading.main_thread(),
    "oom": open("/proc/self/oom_score_adj").read(), "modules": sorted(sys.modules),
    "parent": open("/proc/%d/cmdline" % os.getppid()).read().split(chr(0))[1:4],
}))
"""
NUMBERS = """
import random
print("NUMBERS", random.random())
"""


class Warm:
    """A backend with a pool, whose interpreter of the light runtime waits."""

    def __init__(self, pool: WarmPool, backend: LocalBackend, replicas: ReplicaFactory, folder: Path) -> None:
        self.pool, self.backend, self.replicas, self.folder = pool, backend, replicas, folder
        self._count = 0
        self._before = 0

    def ready(self) -> None:
        wait_until(lambda: [each for each in self.pool.describe() if each["state"] == "ready"], what="a waiting one")
        self._before = 0
        self._before = self.forks

    def run(self, spec: ReplicaSpec) -> list[str]:
        directory = self.start(spec)
        outcome = wait_for_end(self.backend, directory).outcome
        assert outcome is not None and outcome.succeeded, messages(directory)
        return messages(directory)

    def start(self, spec: ReplicaSpec) -> Path:
        self._count += 1
        directory = self.folder / f"replica-{self._count}"
        self.backend.launch(directory, spec)
        return directory

    @property
    def forks(self) -> int:
        """How many replicas were forked since `ready`."""
        return sum(each["replicas"] for each in self.pool.describe()) - self._before


@pytest.fixture
def pools() -> Iterator[Callable[..., WarmPool]]:
    made: list[WarmPool] = []

    def make(limits: Limits = LIMITS) -> WarmPool:
        made.append(WarmPool(limits))
        made[-1].start()
        return made[-1]

    yield make
    for pool in made:
        pool.stop()


@pytest.fixture
def warm(pools: Callable[..., WarmPool], replicas: ReplicaFactory, tmp_path: Path) -> Warm:
    pool = pools()
    warm = Warm(pool, LocalBackend(pool=pool), replicas, tmp_path)
    warm.run(replicas.spec("print('the pool learns of the runtime')"))
    warm.run(replicas.spec("print('once more, since the first may have built it')"))
    warm.ready()
    return warm


@pytest.fixture(scope="module")
def contract_pool() -> Iterator[WarmPool]:
    pool = WarmPool(LIMITS)
    pool.start()
    yield pool
    forks = sum(each["replicas"] for each in pool.describe())
    pool.stop()
    assert forks > 10  # else the tests have tested something else


class TestWarmBackend(BackendContract):
    """The contract of all backends, with a pool that has what the replicas need."""

    @pytest.fixture
    def backend(self, contract_pool: WarmPool, replicas: ReplicaFactory, tmp_path: Path) -> LocalBackend:
        pool, backend = contract_pool, LocalBackend(pool=contract_pool)
        number = 0
        while not any(each["state"] == "ready" for each in pool.describe()):
            number += 1
            backend.launch(tmp_path / f"first-{number}", replicas.spec("print('hello')"))
            wait_for_end(backend, tmp_path / f"first-{number}")
            time.sleep(0.2)
        return backend

    @pytest.fixture
    def replicas(self, request: pytest.FixtureRequest) -> ReplicaFactory:
        return request.getfixturevalue("replicas")


def state(lines: list[str], folder: str) -> dict[str, Any]:
    (line,) = [line for line in lines if line.startswith("STATE ")]
    return dict(json.loads(line.removeprefix("STATE ").replace(folder, "FOLDER")))


def test_everything_is_as_in_a_fresh_interpreter(warm: Warm, tmp_path: Path) -> None:
    spec = warm.replicas.spec(STATE, args=["--a", "b c", "ä"], environment={})
    forks = warm.forks
    seen = state(warm.run(spec), str(warm.folder / "replica-3"))
    assert warm.forks == forks + 1
    fresh_backend = LocalBackend()
    fresh_backend.launch(tmp_path / "fresh", spec)
    wait_for_end(fresh_backend, tmp_path / "fresh")
    fresh = state(messages(tmp_path / "fresh"), str(tmp_path / "fresh"))
    extra = set(seen.pop("modules")) - set(fresh.pop("modules"))
    assert "decimal" in extra and not any(name.startswith("enginehouse") for name in extra)
    assert set(fresh.pop("told_variables")) <= set(seen.pop("told_variables"))
    assert seen == fresh
    assert fresh["parent"][:2] == ["-I", "-S"]


def test_no_two_draw_the_same_numbers(warm: Warm) -> None:
    numbers = {line for _ in range(3) for line in warm.run(warm.replicas.spec(NUMBERS)) if line.startswith("NUMBERS")}
    assert len(numbers) == 3 and warm.forks == 3


def test_many_at_once_are_forked_from_one(warm: Warm) -> None:
    directories = [warm.start(warm.replicas.spec(NUMBERS)) for _ in range(6)]
    outcomes = [wait_for_end(warm.backend, directory).outcome for directory in directories]
    assert all(outcome is not None and outcome.succeeded for outcome in outcomes) and warm.forks == 6


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"decimal.py": "VERSION = 'my own'\n"}, "the packages bring their own decimal"),
        ({"sitecustomize.py": ""}, "has a module sitecustomize"),
        ({"trainer/more.py": "import os\nos.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'\n"}, "may set a variable"),
    ],
)
def test_packages_that_could_tell_the_difference_get_a_fresh_one(
    warm: Warm, tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    package = make_wheel(tmp_path / "own", {"trainer/task.py": "import decimal\nprint('ran', decimal)\n", **files})
    lines = warm.run(warm.replicas.spec(packages=[package]))
    (told,) = [line for line in lines if line.startswith("A fresh interpreter is started, not the one that waits: ")]
    assert reason in told
    (ran,) = [line for line in lines if line.startswith("ran ")]
    assert ("own" in ran or "overlays" in ran) == ("decimal.py" in files)


def test_what_is_the_users_own_is_taken_apart_at_the_end(warm: Warm) -> None:
    code = """
        import atexit, decimal, os
        class Last:
            def __del__(self, write=os.write):
                write(1, b"taken apart, %d\\n" % decimal.Decimal(2))
        last = Last()
        atexit.register(lambda: print("at exit"))
        kept = open("kept.txt", "w")
        kept.write("in the file")
        import ctypes, sys
        ctypes.CDLL(None).printf(b"kept by C\\n")
        class Later:
            def __del__(self, stream=sys.stdout):
                stream.write("no newline")
        later = Later()
    """
    lines = warm.run(warm.replicas.spec(textwrap.dedent(code)))
    said = "\n".join(lines)
    assert all(text in said for text in ("at exit", "taken apart, 2", "no newline", "kept by C"))
    assert warm.forks == 1
    (kept,) = warm.folder.glob("*/work/kept.txt")
    assert kept.read_text() == "in the file"


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit(256 + 4)", 4, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit('what is wrong')", 1, "what is wrong"),
        ("raise KeyError('k')", 1, "KeyError: 'k'"),
        ("os._exit(5)", 5, ""),
        ("import atexit; atexit.register(sys.stdout.close)", 0, ""),
    ],
)
def test_the_status_is_that_of_a_fresh_interpreter(warm: Warm, end: str, status: int, said: str) -> None:
    directory = warm.start(warm.replicas.spec(f"import os, sys\n{end}"))
    outcome = wait_for_end(warm.backend, directory).outcome
    assert outcome is not None and outcome.exit_code == status and warm.forks == 1
    assert any(line.endswith(said) for line in messages(directory))


def test_other_variables_get_another_interpreter(warm: Warm) -> None:
    spec = warm.replicas.spec("import os\nprint(os.environ['OMP_NUM_THREADS'])", environment={"OMP_NUM_THREADS": "1"})
    assert "1" in warm.run(spec) and warm.forks == 0
    wait_until(lambda: len([each for each in warm.pool.describe() if each["state"] == "ready"]) == 2)
    assert "1" in warm.run(spec) and warm.forks == 1


def test_what_varies_from_job_to_job_does_not_matter(warm: Warm) -> None:
    code = "import os\nprint(os.environ['TF_CONFIG'], os.environ['PYTHONPATH'])"
    assert warm.run(warm.replicas.spec(code, environment={"TF_CONFIG": "{}", "CLOUD_ML_JOB_ID": "j"}))[-4][:2] == "{}"
    assert warm.forks == 1


def test_stop_before_the_module_begins_runs_nothing(warm: Warm) -> None:
    directory = warm.folder / "stopped"
    directory.mkdir()
    warm.backend.stop(directory, reason="not wanted", grace_s=1)
    warm.backend.launch(directory, warm.replicas.spec("print('ran')"))
    outcome = wait_for_end(warm.backend, directory).outcome
    assert outcome is not None and outcome.reason == "stopped"
    wait_until(lambda: not processes_with(MARKER, str(directory)), what="the child's end")


def test_runner_that_dies_takes_the_user_process_along(warm: Warm) -> None:
    directory = warm.start(warm.replicas.spec("import os, time\nprint('pid', os.getpid())\ntime.sleep(600)"))
    wait_for_line(directory, "pid ")
    os.kill(json.loads((directory / "runner.json").read_text())["pid"], signal.SIGKILL)
    outcome = wait_for_end(warm.backend, directory).outcome
    assert outcome is not None and outcome.reason == "lost"
    assert not processes_with(MARKER, str(directory))


def test_death_of_the_waiting_one_disturbs_nobody(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "_RETRY_S", 0.1)
    directory = warm.start(warm.replicas.spec("import os, time\nprint('begun')\ntime.sleep(2)\nprint('through')"))
    wait_for_line(directory, "begun")
    (zygote,) = [each.zygote for each in warm.pool._wanted.values() if each.zygote]
    os.kill(zygote.pid, signal.SIGKILL)
    try:
        assert "hello" in warm.run(warm.replicas.spec("print('hello')"))
    except OSError:  # the one who finds it dead is told to try again
        assert "hello" in warm.run(warm.replicas.spec("print('hello')"))
    outcome = wait_for_end(warm.backend, directory).outcome
    assert outcome is not None and outcome.succeeded and "through" in messages(directory)
    warm.ready()


def runners_that_wait(warm: Warm) -> tuple[list[int], list[int]]:
    """Pids of those beside a child with the framework, and of those for replicas of any kind; all there are to be."""
    zygotes = [each.zygote.pid for each in warm.pool._wanted.values() if each.zygote]

    def waiting(parents: list[int]) -> list[int]:
        commands = {info.pid: Path(f"/proc/{info.pid}/cmdline") for info in all_processes() if info.alive}
        parent_of = {info.pid: info.parent_pid for info in all_processes()}
        own = [pid for pid in commands if parent_of.get(pid) in parents and commands[pid].exists()]
        return [pid for pid in own if PLACEHOLDER.encode() in commands[pid].read_bytes().split(b"\0")]

    def all_wait() -> bool:
        return len(waiting(zygotes)) == len(zygotes) * warm_module._AHEAD and len(plain()) == warm_module._AHEAD

    def plain() -> list[int]:
        own = [each._process.pid for each in warm.pool._ahead if each._process]
        return [pid for pid in waiting([os.getpid()]) if pid in own]

    wait_until(all_wait, what="the runners that are made ahead")
    return waiting(zygotes), plain()


PARENT = "import os\nprint('PARENT', os.getppid(), open('/proc/%d/cmdline' % os.getppid()).read().split(chr(0)))"


@pytest.mark.parametrize("suits", [True, False])
def test_a_runner_that_waits_takes_the_next_replica(warm: Warm, suits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    forked, plain = runners_that_wait(warm)
    monkeypatch.setenv("CLOUDSDK_VALUE", "as it is now")  # not as it was when the runner was started
    environment = {} if suits else {"OMP_NUM_THREADS": "7"}
    code = PARENT + "\nprint(os.environ['CLOUDSDK_VALUE'])"
    lines = warm.run(warm.replicas.spec(code, environment=environment))
    (told,) = [line for line in lines if line.startswith("PARENT ")]
    assert int(told.split()[1]) in (forked if suits else plain)
    assert str(warm.folder) in told and PLACEHOLDER not in told
    assert "as it is now" in lines
    runners_that_wait(warm)  # others come in their place


def test_runners_that_died_waiting_are_passed_over(warm: Warm) -> None:
    killed = [pid for pids in runners_that_wait(warm) for pid in pids]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not [pid for pid in killed if (info := process_info(pid)) and info.alive], what="their end")
    assert "hello" in warm.run(warm.replicas.spec("print('hello')"))


def test_runners_that_wait_end_with_the_pool(warm: Warm) -> None:
    waiting = [pid for pids in runners_that_wait(warm) for pid in pids]
    warm.pool.stop()
    wait_until(lambda: not [pid for pid in waiting if (info := process_info(pid)) and info.alive], what="their end")


def test_only_so_many_wait(pools: Callable[..., WarmPool], replicas: ReplicaFactory, tmp_path: Path) -> None:
    pool = pools(Limits(count=1, memory_bytes=1 << 30, idle_s=600))
    warm = Warm(pool, LocalBackend(pool=pool), replicas, tmp_path)
    for value in ("1", "2", "2"):
        warm.run(replicas.spec("", environment={"VALUE": value}))
    warm.ready()
    time.sleep(0.3)
    assert len(pool.describe()) == 1
    assert "2" in warm.run(replicas.spec("import os\nprint(os.environ['VALUE'])", environment={"VALUE": "2"}))
    assert warm.forks == 1


@pytest.mark.parametrize("limits", [Limits(2, 1 << 30, 0.5), Limits(2, 1 << 20, 600)])
def test_one_that_is_idle_or_too_large_is_ended(warm: Warm, limits: Limits) -> None:
    (zygote,) = [each.zygote for each in warm.pool._wanted.values() if each.zygote]
    warm.pool._limits = limits

    def gone() -> bool:
        warm.pool._background.wake()
        return not warm.pool.describe()

    wait_until(gone, what="its end")
    assert process_info(zygote.pid) is None


def test_waiting_interpreters_end_with_their_owner(replicas: ReplicaFactory, tmp_path: Path) -> None:
    spec = replicas.spec("import time\nprint('begun', flush=True)\ntime.sleep(3)")
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    owner = f"""
        import json, time
        from pathlib import Path
        from enginehouse.backends.local import LocalBackend
        from enginehouse.backends.local.warm import Limits, WarmPool
        from enginehouse.replica.spec import ReplicaSpec
        spec = ReplicaSpec.from_json(json.loads(Path({str(tmp_path / "spec.json")!r}).read_text()))
        pool = WarmPool(Limits(2, 1 << 30, 600.0))
        pool.start()
        backend = LocalBackend(pool=pool)
        number = 0
        while not any(each["replicas"] for each in pool.describe()):
            number += 1
            backend.launch(Path({str(tmp_path)!r}) / f"replica-{{number}}", spec)
            time.sleep(0.5)
        print(number, *[each.zygote.pid for each in pool._wanted.values()], flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(owner)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number, pid = process.stdout.readline().split()
    directory = tmp_path / f"replica-{number}"
    wait_for_line(directory, "begun")
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: process_info(int(pid)) is None, what="the interpreter's end")
    outcome = wait_for_end(LocalBackend(), directory).outcome
    assert outcome is not None and outcome.succeeded


def test_child_that_does_not_begin_is_ended(tmp_path: Path) -> None:
    control, status, out, err = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    child = subprocess.Popen(["sleep", "600"], pass_fds=[control[0], status[1]])
    for descriptor in (control[0], status[1], out[1], err[1]):
        os.close(descriptor)
    text = json.dumps({"pid": child.pid, "control": control[1], "status": status[0], "out": out[0], "err": err[0]})
    child.returncode = 0  # waited for by the code under test
    prepared = Prepared(Path(sys.executable), {"PYTHONPATH": str(tmp_path)})
    fault = WarmInterpreter.adopt(text).begin(prepared, "trainer.task", [], tmp_path, stopping=bool, limit_s=0.2)
    assert fault == "it did not begin the module"
    assert process_info(child.pid) is None


def test_stop_while_the_child_begins_is_left_to_the_runner(tmp_path: Path) -> None:
    control, status, out, err = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    child = subprocess.Popen(["cat"], stdin=control[0], stdout=subprocess.DEVNULL, pass_fds=[status[1]])
    for descriptor in (control[0], status[1], out[1], err[1]):
        os.close(descriptor)
    text = json.dumps({"pid": child.pid, "control": control[1], "status": status[0], "out": out[0], "err": err[0]})
    warm = WarmInterpreter.adopt(text)
    prepared = Prepared(Path(sys.executable), {"PYTHONPATH": str(tmp_path)})
    assert warm.begin(prepared, "trainer.task", [], tmp_path, stopping=lambda: True) == ""
    time.sleep(0.2)
    assert child.poll() is None  # its input is not at its end: it can't be taken for a module that ended well
    child.returncode = 0
    warm.discard()
    assert process_info(child.pid) is None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("os.environ['CUDA_VISIBLE_DEVICES'] = '-1'", True),
        ("os.environ.setdefault(\n    'KERAS_BACKEND', 'jax')", True),
        ('os.putenv("OMP_NUM_THREADS", "1")', True),
        ("os.environ[name] = value", True),
        ("os.environ.update(values)", True),
        ("os.environ.update(A='1')", True),
        ("os.environ['TF_CONFIG'] = config", False),
        ("if os.environ[name] == value: pass", False),
        ("os.environ['MY_FLAG'] = '1'; x = os.environ.get(name)", False),
        ("os.environ.setdefault('A', 'b')", False),
        ("OMP_NUM_THREADS = 1", False),
    ],
)
def test_sources_that_may_set_a_variable_before_an_import(tmp_path: Path, source: str, found: bool) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "task.py").write_text(f"import os\n{source}\n")
    fault = source_fault({"PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'missing'}"})
    assert bool(fault) == found and (not found or fault.startswith("trainer/task.py may set a variable"))


def test_phase_is_told_as_ever(warm: Warm) -> None:
    directory = warm.start(warm.replicas.spec("import time\ntime.sleep(600)"))
    wait_until(lambda: warm.backend.status(directory).phase is Phase.RUNNING)
    warm.backend.stop(directory, reason="enough", grace_s=1)
    outcome = wait_for_end(warm.backend, directory).outcome
    assert outcome is not None and (outcome.reason, outcome.message) == ("stopped", "enough")
