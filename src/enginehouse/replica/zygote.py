# -*- coding: utf-8 -*-
# mypy: ignore-errors
"""An interpreter that waits with a framework imported, and becomes replicas by fork.

`python zygote.py DESCRIPTOR ROOM` in the runtime's interpreter; one file beside bootstrap.py, standard library only,
good for Python 2.7 and 3.6 to current. DESCRIPTOR is a socket to whoever started it (backends/local/zygote.py), with
whose end it ends. It only imports and never runs anything: what a framework starts when it is used can't be forked.

For each order it forks twice. The first child becomes the replica's runner by exec and so is the parent of the
second, which waits for the runner's word (replica/warm.py) to go on as `python bootstrap.py MODULE ARGS…` would. The user's
code can't tell the two apart, except that the framework is there already:
    * variables, sys.path, sys.argv, working directory, streams, process group, signals and what /proc tells are made
      as a fresh interpreter has them;
    * variables that may be read while a framework is imported are the same, or the runner is told that they are not;
    * generators of random numbers are seeded anew;
    * what was printed while the framework was imported is printed again.

A message is four bytes of length and that much JSON.
"""

import atexit
import ctypes
import fcntl
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time
import types
import warnings

PYTHON_2 = sys.version_info[0] == 2
ROOM_VARIABLE = "ENGINEHOUSE_ROOM"
"""Keeps room in the block of variables that /proc shows, for those of the process to come."""
MARKER = "ENGINEHOUSE_REPLICA"

VARYING = (
    # what differs from replica to replica, and is read by nothing that is imported beforehand
    "CLOUD_ML_*", "CLUSTER_SPEC", "ENGINEHOUSE_*", "PATH", "PWD", "PYTHONPATH", "TF_CONFIG",
    "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "DMLC_*",
    "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID",
    # and from project to project
    "BOTO_CONFIG", "CLOUDSDK_*", "GCLOUD_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT",
)  # fmt: skip
"""Variables that may differ between the zygote and its children (a star stands for any rest); all others must not."""

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = b"300"  # as replica/processes.py has it
_NICE = 10
EXEC_LIMIT_S = 5.0
_SIG_UNBLOCK = 1

_libc = ctypes.CDLL(None, use_errno=True)


def fixed(variables):
    """Those of `variables` that a zygote must share with its children."""
    return {name: value for name, value in variables.items() if not varies(name)}


def varies(name):
    return any(name.startswith(each[:-1]) if each.endswith("*") else name == each for each in VARYING)


# --- messages ---


def send(descriptor, value):
    data = json.dumps(value).encode("ascii")
    data = struct.pack("!I", len(data)) + data
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor):
    """The next message, None at the end of all."""
    size = _read(descriptor, 4)
    data = None if size is None else _read(descriptor, struct.unpack("!I", size)[0])
    return None if data is None else json.loads(data.decode("ascii"))


def _read(descriptor, count):
    data = b""
    while len(data) < count:
        part = os.read(descriptor, count - len(data))
        if not part:
            return None
        data += part
    return data


def receive_descriptor(channel):
    """A descriptor that is handed over, None at the end of all."""
    if PYTHON_2:
        import _multiprocessing

        try:
            return _multiprocessing.recvfd(channel.fileno())
        except (OSError, IOError, RuntimeError):
            return None
    import array

    _data, ancillary, _flags, _address = channel.recvmsg(1, socket.CMSG_LEN(4))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return array.array("i", content)[0]
    return None


# --- the zygote ---


def serve(command):
    """Import, then fork until the other end is gone. Returns in the forked children alone, with their task."""
    channel = socket.fromfd(int(command[1]), socket.AF_UNIX, socket.SOCK_STREAM)
    os.close(int(command[1]))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    start = receive(channel.fileno())
    if start is None:
        os._exit(0)
    show_command([command[0], __file__, start["title"]])
    given = [as_native(name) for name in start["variables"]] + ["PATH", ROOM_VARIABLE]
    own_variables = {name: value for name, value in os.environ.items() if name not in given}
    atexit.register(leave_imported)  # the first that is registered is the last that is called
    said, error = import_quietly(start["modules"])
    imported.update((name, module) for name, module in sys.modules.items() if name not in NEVER_LEFT)
    imported_names.update(name.partition(".")[0] for name in list(sys.modules))
    if hasattr(gc, "freeze"):  # no collection of a child's, the one at its end above all, goes through the framework
        gc.collect()
        gc.freeze()
    send(channel.fileno(), {"error": error, "pid": os.getpid()})
    if error:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the runners' ends are of no interest here
    while True:
        lock = receive_descriptor(channel)
        order = None if lock is None else receive(channel.fileno())
        if order is None:
            os._exit(0)
        watch = os.pipe()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
                pid = os.fork()
        except OSError as fault:
            for descriptor in (lock,) + watch:
                os.close(descriptor)
            send(channel.fileno(), {"error": str(fault)})
            continue
        if pid:
            os.close(lock)
            os.close(watch[1])
            fault = await_exec(pid, watch[0])
            send(channel.fileno(), {"error": fault} if fault else {"pid": pid})
            continue
        os.close(watch[0])
        task = become_runner(channel, lock, watch[1], order, command)
        task.fixed_variables = {as_native(name): as_native(value) for name, value in start["variables"].items()}
        task.own_variables = own_variables
        task.said = said
        return task


def await_exec(pid, watch):
    """Wait until the runner has taken the place of the first child. Why it has not, "" if it has."""
    try:
        if not select.select([watch], [], [], EXEC_LIMIT_S)[0]:
            os.kill(pid, signal.SIGKILL)
            return "its child hung after the fork"
        return os.read(watch, 4096).decode("utf-8", "replace")
    finally:
        os.close(watch)


def import_quietly(modules):
    """Import with little weight against the work of others. Returns ((stdout, stderr), error)."""
    weight = lower_weight()
    paths, sys.argv[:] = list(sys.path), [""]
    error = ""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            for name in modules:
                __import__(name)
        except BaseException as fault:
            error = "%s: %s" % (type(fault).__name__, fault)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, descriptor in zip((1, 2), kept):
            os.dup2(descriptor, number)
            os.close(descriptor)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    if weight:
        os.nice(-weight)
    if sys.path[: len(paths)] != paths and not error:
        error = "an import has changed sys.path"
    return said, error


NEVER_LEFT = ("sys", "builtins", "__builtin__", "__main__")
imported = {}
"""The modules that are there beforehand, by name, but for those that Python takes apart in its own way."""
imported_names = set()
"""The top-level names of all that is there; made before the forks, since each look at a name copies a page."""


def leave_imported():
    """At a child's end: don't take apart what it shares with its zygote, page by page.

    The user's own modules and objects are taken apart as ever.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(imported))
    for name, module in imported.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


class TheEnd(object):
    """Ends the process when the module `sys` is cleared: all of the user's is gone then, and Python would go on to free
    piece by piece what the kernel takes back in one stroke.

    What is written to the streams of C and of Python until then goes out.
    """

    def __init__(self, code):
        self._code = code
        self._streams = (sys.__stdout__, sys.__stderr__)
        self._flush = _libc.fflush
        self._leave = os._exit

    @classmethod
    def follow(cls, code):
        """Arrange for it, where the exit status is known: `code` is what `sys.exit` was given."""
        code = 0 if code is None else code
        if isinstance(code, int) and 0 <= code <= 255:
            sys._enginehouse_end = cls(int(code))

    def __del__(self):
        for stream in self._streams:
            stream.flush()  # where it fails, Python goes on and makes that known
        self._flush(None)
        self._leave(self._code)


def lower_weight():
    """Step back. Returns by how much the priority can and must be raised again."""
    try:  # in a session of its own; the child's is another, which has its full weight
        with open("/proc/self/autogroup", "w") as file:
            file.write("%d\n" % _NICE)
    except (OSError, IOError):
        pass
    try:
        os.nice(-1)  # only who may do this can take the other back
    except (OSError, IOError):
        return 0
    os.nice(1 + _NICE)
    return _NICE


# --- its children ---


class Task(object):
    """What a child needs to know of its zygote, and its descriptors to the runner."""

    def __init__(self, control, status, command):
        self.control = control
        self.status = status
        self.command = command
        self.fixed_variables = {}
        self.own_variables = {}  # what Python adds at its start: LC_CTYPE, where the locale is C (PEP 538)
        self.said = (b"", b"")


def become_runner(channel, lock, watch, order, command):
    """In the first child: become the runner. Returns in the second child."""
    try:
        directory = as_native(order["directory"])
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        control, status, out, err = os.pipe(), os.pipe(), os.pipe(), os.pipe()
        runner = os.getpid()
        pid = os.fork()
        if not pid:
            channel.close()
            for descriptor in (lock, watch, control[1], status[0], out[0], err[0]):
                os.close(descriptor)
            task = Task(control[0], status[1], command)
            be_a_child(runner, out[1], err[1], directory)
            return task
        log = os.open(as_native(order["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(directory)
        warm = {"pid": pid, "control": control[1], "status": status[0], "out": out[0], "err": err[0]}
        kept = [lock] + [number for name, number in warm.items() if name != "pid"]
        close_all_but(kept + [watch])
        fcntl.fcntl(watch, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # its end tells of the exec
        if not PYTHON_2:
            for descriptor in kept:
                os.set_inheritable(descriptor, True)
        arguments = [as_native(each) for each in order["command"]] + [str(lock), json.dumps(warm)]
        variables = {as_native(name): as_native(value) for name, value in order["variables"].items()}
        os.execve(arguments[0], arguments, variables)
    except BaseException as fault:
        os.write(watch, ("%s: %s" % (type(fault).__name__, fault)).encode("ascii", "replace"))
    os._exit(70)


def be_a_child(runner, out, err, directory):
    """In the second child: what a process has that the runner has started."""
    os.setpgid(0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != runner:
        os._exit(0)
    show_variables({MARKER: directory})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)  # as Python has them
    unblock(signal.SIGTERM)
    try:
        with open("/proc/self/oom_score_adj", "wb") as file:
            file.write(_OOM_SCORE)
    except (OSError, IOError):
        pass
    for descriptor, number in ((out, 1), (err, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)


def close_all_but(kept):
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that was used for looking


def unblock(number):
    """Whoever starts a zygote has SIGTERM blocked, for the runner's sake."""
    if not PYTHON_2:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        return
    mask = ctypes.create_string_buffer(128)
    _libc.sigemptyset(mask)
    _libc.sigaddset(mask, int(number))
    _libc.sigprocmask(_SIG_UNBLOCK, mask, None)


def rehearse(task):
    """Do once, while nobody waits, what is to be quick later: memory that is touched first after a fork is copied then,
    page by page. So are the modules that `leave_imported` is going to leave.
    """
    variables = dict(os.environ)
    order = json.loads(json.dumps({as_bytes(name).decode("latin-1"): "" for name in variables}))
    unfit(task, task.command[0], {as_native(name): variables[as_native(name)] for name in order})
    os.environ.update(variables)
    module_path(variables)
    if not PYTHON_2:
        import importlib

        importlib.invalidate_caches()
    bootstrap.find_fault("enginehouse_rehearsal")
    for _entry in imported.items():
        pass


def await_order(task):
    """Wait for the runner's word, and be ready to run its module. Ends the process where that is not to be."""
    seed_anew()
    rehearse(task)
    order = receive(task.control)
    if order is None:  # the replica could not be prepared
        os._exit(70)
    os.close(task.control)
    variables = {as_native(name): as_native(value) for name, value in order["variables"].items()}
    fault = unfit(task, as_native(order["python"]), variables)
    if fault:
        send(task.status, {"unfit": fault})
        os._exit(70)
    for name in list(os.environ):
        if name not in variables and name not in task.own_variables:
            del os.environ[name]
    os.environ.update(variables)
    os.chdir(as_native(order["cwd"]))
    sys.path[:] = [os.path.dirname(os.path.abspath(__file__))] + module_path(variables)
    if not PYTHON_2:
        import importlib

        importlib.invalidate_caches()
    show_variables(variables)
    arguments = [as_native(each) for each in order["arguments"]]
    module = as_native(order["module"])
    bootstrap = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py")
    show_command([task.command[0], bootstrap, module] + arguments)
    if "logging" in sys.modules:  # what relativeCreated counts from
        logging = sys.modules["logging"]
        logging._startTime = time.time() if isinstance(logging._startTime, float) else time.time_ns()
    sys.argv[:] = [bootstrap, module] + arguments
    send(task.status, {"begun": True})
    os.close(task.status)
    for number, data in zip((1, 2), task.said):
        while data:
            data = data[os.write(number, data) :]


def unfit(task, python, variables):
    """Why a fresh interpreter might behave in another way; "" if it would not."""
    if python != task.command[0]:
        return "it is of another runtime"
    now, then = fixed(variables), task.fixed_variables
    differing = sorted(name for name in set(now) | set(then) if now.get(name) != then.get(name))
    if differing:
        return "the job has other values of " + ", ".join(differing)
    for folder in python_path(variables):
        if not os.path.isdir(folder):
            if os.path.exists(folder):
                return "%s on PYTHONPATH is no folder" % folder
            continue
        names = set(name.partition(".")[0] for name in os.listdir(folder))
        for special in ("sitecustomize", "usercustomize"):
            if special in names:
                return "%s has a module %s" % (folder, special)
        if names & imported_names:
            return "the packages bring their own " + ", ".join(sorted(names & imported_names))
    return ""


def python_path(variables):
    return [os.path.abspath(part) for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]


def module_path(variables):
    """What `site` makes of PYTHONPATH and the runtime's own folders."""
    path = []
    for part in python_path(variables) + sys.path:
        if part not in path:
            path.append(part)
    return path


def seed_anew():
    """No two children may draw the same random numbers."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(32)


# --- what /proc tells ---


def show_command(command):
    """Let /proc/PID/cmdline tell `command`, as far as there is room."""
    start, end = _bounds(47, 48)
    if end:
        _overwrite(start, end, b"\0".join(as_bytes(each) for each in command))


def show_variables(variables):
    """Let /proc/PID/environ tell `variables`, too, in the room that is kept for them; the replica's marker first."""
    start, end = _bounds(49, 50)
    block = ctypes.string_at(start, end - start) if end else b""
    begin = block.find(as_bytes(ROOM_VARIABLE) + b"=")
    if begin >= 0:
        begin += len(ROOM_VARIABLE) + 1
        room = _room_of(block, begin)
        names = sorted(variables, key=lambda name: name != MARKER)
        text = b"\0".join(as_bytes(name) + b"=" + as_bytes(variables[name]) for name in names)
        _overwrite(start + begin, start + begin + room, b"\0" + text)


_room = []


def _room_of(block, begin):
    """How long the room was before anything was written into it."""
    if not _room:
        _room.append(block.index(b"\0", begin) - begin + 1)
    return _room[0]


def _overwrite(start, end, data):
    room = end - start - 1
    ctypes.memmove(start, data[:room].ljust(room + 1, b"\0"), room + 1)


def _bounds(first, second):
    """Two addresses of /proc/self/stat (proc(5); counted from 0), zeros where the kernel doesn't tell."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[first - 2]), int(fields[second - 2])
    except (OSError, IOError, ValueError, IndexError):
        return 0, 0


def as_native(text):
    """The text of a message, whose characters stand for bytes, as os.environ and sys.argv have it."""
    data = text.encode("latin-1")
    return data if PYTHON_2 else os.fsdecode(data)


def as_bytes(text):
    if isinstance(text, bytes):
        return text
    return text.encode("utf-8") if PYTHON_2 else os.fsencode(text)


def load_bootstrap():
    """bootstrap.py as a module that no import finds."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py")
    module = types.ModuleType("enginehouse_bootstrap")
    module.__file__ = path
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    return module


if __name__ == "__main__":
    _command = [sys.executable] + sys.argv[1:]
    del sys.path[0]
    bootstrap = load_bootstrap()
    _task = serve(_command)
    await_order(_task)
    bootstrap.OWN_FILES.append(__file__)
    try:
        bootstrap.main()
    except SystemExit as end:
        TheEnd.follow(end.code)
        raise
    TheEnd.follow(0)
