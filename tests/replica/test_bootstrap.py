# The bootstrap in every Python that a runtime may have. Code of the cases runs on Python 2.7 too.
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from enginehouse.core.clock import SystemClock
from enginehouse.replica.output import Entry, Findings, OutputReader
from enginehouse.replica.process import BOOTSTRAP
from enginehouse.testing.warm import WarmRuns


def interpreter(version: str) -> str:
    """The interpreter of `version` from pyenv, or the one that runs this test."""
    if version == "own":
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"Python {version} is not among pyenv's versions on this host")
    return str(found[-1])


ALL = ["2.7", "3.6", "3.8", "3.12", "3.13", "own"]
THREE = [version for version in ALL if version != "2.7"]


class Run:
    """One run of the bootstrap: its records, exit status and findings."""

    def __init__(
        self,
        python: str,
        folder: Path,
        files: dict[str, str],
        module: str,
        *arguments: str,
        variables: dict[str, str] | None = None,
    ) -> None:
        site = folder / "site"
        for name, text in {"trainer/__init__.py": "", **files}.items():
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        (folder / "work").mkdir(exist_ok=True)
        (folder / "overlay.json").write_text(json.dumps({"modules": ["trainer", "trainer.model", "trainer.task"]}))
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(site),
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "ENGINEHOUSE_OVERLAY": str(site),
            **(variables or {}),
        }
        answer = self.start(python, module, arguments, folder=folder, cwd=folder / "work", env=variables)
        self.status = answer.returncode
        self.findings = Findings()
        self.out = self._entries(answer.stdout, "INFO")
        self.err = self._entries(answer.stderr, "ERROR")

    @staticmethod
    def start(
        python: str, module: str, arguments: Sequence[str], *, folder: Path, cwd: Path, env: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[bytes]":
        """In a fresh interpreter; `way` puts a waiting one in its place."""
        command = [python, str(BOOTSTRAP), module, *arguments]
        return subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )

    def _entries(self, data: bytes, severity: str) -> list[Entry]:
        reader = OutputReader(severity, self.findings, SystemClock())
        return reader.feed(data) + reader.close()

    @property
    def text(self) -> str:
        return "\n".join(message for _, message, _ in self.out)

    def lines(self) -> list[tuple[str, str]]:
        return [(severity, message) for severity, message, _ in self.out]


@pytest.fixture(scope="module")
def warm_runs() -> Iterator[WarmRuns]:
    runs = WarmRuns()
    yield runs
    runs.close()


@pytest.fixture(params=["fresh", "warm"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All that holds for a fresh interpreter holds for the child of one that waited."""
    if request.param == "warm":
        monkeypatch.setattr(Run, "start", staticmethod(request.getfixturevalue("warm_runs").run))
    return str(request.param)


@pytest.mark.parametrize("version", ALL)
def test_runs_as_python_m_does(version: str, tmp_path: Path) -> None:
    code = """
        from __future__ import print_function
        import json, os, sys
        from trainer import model
        main = sys.modules["__main__"]
        spec = globals().get("__spec__")
        print(json.dumps({
            "argv": sys.argv, "name": __name__, "package": __package__, "spec": spec and spec.name,
            "file": __file__, "main": main.__dict__ is globals(), "path": sys.path[:2],
            "extra": sorted(set(globals()) - {
                "__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__", "__cached__",
                "__builtins__", "print_function", "json", "os", "sys", "model", "main", "spec", "__annotations__"}),
            "variables": [name for name in os.environ if name.startswith("ENGINEHOUSE")],
            "orig": getattr(sys, "orig_argv", None),
        }))
    """
    files = {"trainer/task.py": code, "trainer/model.py": ""}
    python = interpreter(version)
    run = Run(python, tmp_path, files, "trainer.task", "--a", "b")
    assert run.status == 0, run.err
    seen = json.loads(run.text)
    site, work = str(tmp_path / "site"), str(tmp_path / "work")
    bare = subprocess.run(
        [python, "-m", "trainer.task", "--a", "b"],
        cwd=work,
        env={"PYTHONPATH": site, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        check=True,
    )
    expected = json.loads(bare.stdout)
    if expected["orig"]:
        expected["orig"][0] = seen["orig"][0]
    assert seen == expected
    assert seen["path"] == ["" if version in ("2.7", "3.6") else work, site]


@pytest.mark.parametrize("version", ALL)
def test_logging_keeps_its_severity_and_its_place(version: str, tmp_path: Path) -> None:
    code = """
        from __future__ import print_function
        import logging, sys
        print("one")
        logging.warning("two %s", 2)
        sys.stdout.write("three")
        logging.getLogger("my.lib").error("four")
        print("five")
        logging.getLogger().setLevel(logging.DEBUG)
        logging.debug("six")
        try:
            1 / 0
        except ZeroDivisionError:
            logging.exception("seven")
        logging.critical("caf\\xe9" if sys.version_info[0] > 2 else u"caf\\xe9")
        print("end")
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert run.status == 0, run.err
    *others, seven, eight, end = run.lines()
    assert others == [
        ("INFO", "one"),
        ("WARNING", "two 2"),
        ("INFO", "three"),
        ("ERROR", "four"),
        ("INFO", "five"),
        ("DEBUG", "six"),
    ]
    assert seven[0] == "ERROR" and seven[1].startswith("seven\nTraceback (most recent call last):\n")
    assert "ZeroDivisionError" in seven[1].splitlines()[-1]
    assert [eight, end] == [("CRITICAL", "caf\xe9"), ("INFO", "end")]
    fields = run.out[3][2]
    assert fields is not None
    assert (fields["levelname"], fields["lineno"], fields["logger"]) == ("ERROR", 7, "my.lib")
    assert fields["pathname"].endswith("trainer/task.py") and fields["created"] > 1e9
    assert run.err == []


@pytest.mark.parametrize("version", ALL)
def test_the_users_own_logging_set_up_is_kept(version: str, tmp_path: Path) -> None:
    code = """
        import io, logging, sys
        logging.basicConfig(level=logging.INFO, format="%(name)s|%(message)s")
        logging.info("formatted")
        stream = logging.StreamHandler(sys.stdout)
        stream.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
        own = logging.getLogger("own")
        own.propagate = False
        own.addHandler(stream)
        own.warning("to stdout")
        memory = io.StringIO()
        other = logging.getLogger("other")
        other.propagate = False
        other.addHandler(logging.StreamHandler(memory))
        other.warning(u"to memory")
        own.warning(memory.getvalue().strip())
        logging.getLogger("quiet").debug("not shown")
        logging.FileHandler("file.log").emit(logging.makeLogRecord({"msg": "to a file"}))
        own.warning(open("file.log").read().strip())
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert run.lines() == [
        ("INFO", "root|formatted"),
        ("WARNING", "[WARNING] to stdout"),
        ("WARNING", "[WARNING] to memory"),
        ("WARNING", "[WARNING] to a file"),
    ]
    assert (run.status, run.err) == (0, [])


@pytest.mark.parametrize("version", THREE)
def test_basic_config_by_force(version: str, tmp_path: Path) -> None:
    force = "" if version == "3.6" else ", force=True"
    code = f"""
        import logging, sys
        logging.warning("before")
        logging.basicConfig(level=logging.INFO, stream=sys.stdout{force})
        logging.info("after")
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    expected = [("WARNING", "before")] + ([] if version == "3.6" else [("INFO", "after")])
    assert run.lines() == expected


@pytest.mark.parametrize("version", ALL)
def test_uncaught_exception_is_one_record_without_our_frames(version: str, tmp_path: Path) -> None:
    code = """
        def f():
            raise ValueError("first\\nsecond")

        f()
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert run.status == 1 and run.err == []
    [(severity, message)] = run.lines()
    assert severity == "ERROR" and run.findings.uncaught == message
    lines = message.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{tmp_path}/site/trainer/task.py", line 5' in lines[1]
    assert lines[-2:] == ["ValueError: first", "second"]
    assert "bootstrap" not in message and "runpy" not in message


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("place", ["trainer/task.py", "trainer/__init__.py"])
@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("import no_such_thing", "no_such_thing"),
        ("import trainer.nothing", "nothing"),
        ("1 +", "SyntaxError: invalid syntax"),
        ("raise ImportError('old')", "ImportError: old"),
        ("raise ValueError('odd')", "ValueError: odd"),
    ],
)
def test_failed_import_is_told_as_it_is(version: str, place: str, code: str, last: str, tmp_path: Path) -> None:
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": "", place: "\n" + code + "\n"}, "trainer.task")
    assert run.status == 1 and run.err == []
    [(severity, message)] = run.lines()
    assert severity == "ERROR" and not run.findings.fatal
    assert place in message and last in message.splitlines()[-1]
    assert "bootstrap" not in message and "runpy" not in message and "importlib" not in message


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(
    ("module", "start"),
    [
        ("trainer.tsk", "No module named 'trainer.tsk'."),
        ("trainr.task", "No module named 'trainr.task'."),
        ("task", "No module named 'task'."),
        ("trainer", "'trainer' is a package, which can't be run; name one of its modules."),
    ],
)
def test_missing_module_is_told_with_what_is_there(version: str, module: str, start: str, tmp_path: Path) -> None:
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": ""}, module)
    told = f"{start} The packages hold: trainer, trainer.model, trainer.task."
    assert (run.status, run.lines(), run.err) == (1, [("ERROR", told)], [])
    assert run.findings.fatal == told


@pytest.mark.parametrize("version", ALL)
def test_exit_codes(version: str, tmp_path: Path) -> None:
    cases = {"0": 0, "": 0, "3": 3, "None": 0, "'no data'": 1, "True": 1}
    for value, status in cases.items():
        run = Run(
            interpreter(version), tmp_path, {"trainer/task.py": f"import sys\nsys.exit({value})"}, "trainer.task"
        )
        assert (run.status, run.out) == (status, [])
        assert [message for _, message, _ in run.err] == (["no data"] if value == "'no data'" else [])
        (tmp_path / "site/trainer/task.pyc").unlink(missing_ok=True)
        for cached in tmp_path.glob("site/trainer/__pycache__/*"):
            cached.unlink()


@pytest.mark.parametrize("version", THREE)
def test_multiprocessing_finds_the_main_module(version: str, tmp_path: Path) -> None:
    code = """
        import multiprocessing, sys

        def square(x):
            return x * x

        if __name__ == "__main__":
            for method in ("spawn", "fork"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(method, pool.map(square, [2, 3]))
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert (run.status, run.lines(), run.err) == (0, [("INFO", "spawn [4, 9]"), ("INFO", "fork [4, 9]")], [])


@pytest.mark.parametrize("version", ["3.8", "3.13", "own"])
def test_exception_in_a_thread_is_one_record(version: str, tmp_path: Path) -> None:
    code = """
        import threading
        thread = threading.Thread(target=lambda: 1 / 0, name="feeder")
        thread.start()
        thread.join()
        print("end")
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    (severity, message), end = run.lines()
    assert severity == "ERROR" and message.startswith(
        "Exception in thread feeder:\nTraceback (most recent call last):"
    )
    assert (end, run.status) == (("INFO", "end"), 0)
    assert run.findings.traceback.startswith("Traceback") and run.findings.uncaught == ""


@pytest.mark.parametrize("version", ALL)
def test_redirected_output_stays_the_users(version: str, tmp_path: Path) -> None:
    code = """
        from __future__ import print_function
        import logging, os, sys
        target = os.open("captured.log", os.O_WRONLY | os.O_CREAT)
        saved = os.dup(2)
        os.dup2(target, 2)
        logging.warning("captured")
        os.dup2(saved, 2)
        logging.warning("shown")
        for number in range(3, 50):
            try:
                os.close(number)
            except OSError:
                pass
        mine = os.open("mine.txt", os.O_WRONLY | os.O_CREAT)
        logging.warning("without the channel")
        print(repr(open("captured.log").read()), repr(open("mine.txt").read()))
    """
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert run.status == 0, run.err
    assert run.lines() == [("WARNING", "shown"), ("INFO", "'WARNING:root:captured\\n' ''")]
    assert [(severity, message) for severity, message, _ in run.err] == [
        ("WARNING", "WARNING:root:without the channel")
    ]


@pytest.mark.parametrize("version", ALL)
def test_pth_files_of_the_overlay_are_obeyed(version: str, tmp_path: Path) -> None:
    files = {"trainer/task.py": "import hidden", "more/hidden.py": "print('found')", "extra.pth": "more\n"}
    run = Run(interpreter(version), tmp_path, files, "trainer.task")
    assert (run.status, run.lines()) == (0, [("INFO", "found")])


@pytest.mark.parametrize("version", THREE)
def test_crash_in_native_code_tells_where_python_was(version: str, tmp_path: Path) -> None:
    code = "import ctypes\nprint('before')\nctypes.string_at(0)\n"
    run = Run(interpreter(version), tmp_path, {"trainer/task.py": code}, "trainer.task")
    assert run.status == -11 and run.lines() == [("INFO", "before")]
    assert "trainer/task.py" in "\n".join(message for _, message, _ in run.err)


def tuned(python: str, folder: Path, code: str, *arguments: str) -> dict[str, list[str]] | None:
    """What a trial of three tuned flags notes; None where it notes nothing."""
    names = ["learning-rate", "units", "kind"]
    files = {"trainer/task.py": "import argparse, os\nassert 'ENGINEHOUSE_PARAMETERS' not in os.environ\n" + code}
    variables = {"ENGINEHOUSE_PARAMETERS": json.dumps(names), "ENGINEHOUSE_REPLICA": str(folder)}
    given = arguments or ("--learning-rate", "0.1", "--units", "3", "--kind=a")
    run = Run(interpreter(python), folder, files, "trainer.task", *given, variables=variables)
    assert run.status == 0, run.err
    noted = folder / "parameters.json"
    return json.loads(noted.read_text()) if noted.exists() else None


PARSER = """\
parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--units", type=int)
parser.add_argument("--%s")
"""


@pytest.mark.parametrize("python", ALL)
def test_a_tuned_flag_that_the_parser_left_over_is_noted(python: str, tmp_path: Path) -> None:
    code = PARSER % "kind" + "parsed, left = parser.parse_known_args()\nassert left == ['--learning-rate', '0.1']\n"
    assert tuned(python, tmp_path, code) == {"learning-rate": ["--learning_rate"]}


@pytest.mark.parametrize("python", ALL)
def test_a_flag_that_some_parser_takes_is_not_noted(python: str, tmp_path: Path) -> None:
    code = PARSER % "kind" + (
        "parsed, left = parser.parse_known_args()\n"
        "second = argparse.ArgumentParser()\n"
        "second.add_argument('--learning-rate-of-it', type=float)\n"  # an abbreviation takes it
        "assert second.parse_args(left).learning_rate_of_it == 0.1\n"
    )
    assert tuned(python, tmp_path, code) == {}


@pytest.mark.parametrize("python", ["2.7", "own"])
def test_flags_of_a_subcommand_count(python: str, tmp_path: Path) -> None:
    code = (
        "parser = argparse.ArgumentParser()\n"
        "train = parser.add_subparsers().add_parser('train')\n"
        "train.add_argument('--units')\n"
        "train.add_argument('--learning-rate')\n"
        "train.add_argument('--kinds_of_it', dest='kind')\n"
        "parser.parse_known_args()\n"
    )
    given = ("train", "--learning-rate", "0.1", "--units=3", "--kimd", "a")
    assert tuned(python, tmp_path, code, *given) is None


@pytest.mark.parametrize("python", ["2.7", "own"])
def test_nothing_is_said_of_flags_that_no_parser_saw(python: str, tmp_path: Path) -> None:
    assert tuned(python, tmp_path, "import sys\nassert '--units' in sys.argv\n") is None


def test_flags_of_absl_are_asked_at_the_end(tmp_path: Path) -> None:
    code = (
        "import sys, types\n"
        "class Flags(dict):\n"
        "    def is_parsed(self):\n"
        "        return True\n"
        "sys.modules['absl.flags'] = types.ModuleType('absl.flags')\n"
        "sys.modules['absl.flags'].FLAGS = Flags(units=1, kind='a', learning_rate=0.1)\n"
    )
    assert tuned("own", tmp_path, code) == {"learning-rate": ["--learning_rate"]}
