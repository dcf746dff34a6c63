# -*- coding: utf-8 -*-
# mypy: ignore-errors
"""Runs inside the user's process: `python bootstrap.py MODULE ARGS…` does what `python -m MODULE ARGS…` does.

One file, standard library only, good for Python 2.7 and 3.6 to current, since it runs in the runtime's interpreter.
It adds some things that the user's code can't tell apart from a bare run:
    * what `logging` writes to stdout or stderr goes to the runner with its severity, in order with what is printed;
    * an uncaught exception is told without the frames of this file and of runpy;
    * a module that isn't there is told together with those that are;
    * in a trial of a tuning job, flags that are tuned and that no argument parser knows are noted in parameters.json.

A record is RECORD_MARK, one line of JSON {"s": severity, "m": message, "f": fields, "k": kind}, newline, on a duplicate
of stdout (the reader is replica/output.py).
"""

import logging
import os
import runpy
import sys
import threading
import traceback
import types

RECORD_MARK = b"\x1e"
MAX_MESSAGE_CHARS = 256 * 1024
OVERLAY_VARIABLE = "ENGINEHOUSE_OVERLAY"
PARAMETERS_VARIABLE = "ENGINEHOUSE_PARAMETERS"
REPLICA_VARIABLE = "ENGINEHOUSE_REPLICA"
PARAMETERS_FILE = "parameters.json"
OWN_FILES = ["<frozen runpy>"]
"""Whose frames are not the user's; zygote.py, which goes on here, adds itself."""
PYTHON_2 = sys.version_info[0] == 2


class Channel(object):
    """The way to the runner."""

    def __init__(self):
        self._descriptor = os.dup(1)
        if PYTHON_2:
            import fcntl

            fcntl.fcntl(self._descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self._pipes = {number: _identity(number) for number in (1, 2)}
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self):
        self._lock = threading.RLock()

    def carries(self, stream):
        """Whether what is written to `stream` ends in the runner's pipes."""
        try:
            number = stream.fileno()
            mine = _identity(self._descriptor) == self._pipes[1]  # else user code has closed it
            return mine and number in self._pipes and _identity(number) == self._pipes[number]
        except Exception:
            return False

    def send(self, severity, message, fields=None, kind=None):
        import json

        if len(message) > MAX_MESSAGE_CHARS:
            left_out = len(message) - MAX_MESSAGE_CHARS
            message = message[:MAX_MESSAGE_CHARS] + u" … [%d more characters were left out]" % left_out
        record = {"s": severity, "m": message}
        if fields:
            record["f"] = fields
        if kind:
            record["k"] = kind
        data = RECORD_MARK + json.dumps(record, default=repr).encode("ascii") + b"\n"
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


def _identity(descriptor):
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def severity_of(level):
    """Cloud Logging's severity for a level number of `logging`."""
    for least, severity in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (10, "DEBUG")):
        if level >= least:
            return severity
    return "DEFAULT"


def text_of(value):
    """Text, also from the byte strings of Python 2."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def send_logging_records(channel):
    """Let every StreamHandler on stdout or stderr, whoever made it, send its records with their severity.

    Handlers, levels and formats are the user's: only the way out differs. A record that no handler wants goes out at
    any level that its logger lets through (bare Python shows such records from WARNING on).
    """
    emit = logging.StreamHandler.emit
    plain = logging.Formatter("%(message)s")

    def emit_record(handler, record):
        stream = handler.stream
        if not channel.carries(stream):
            emit(handler, record)
            return
        try:
            formatter = handler.formatter
            default = formatter is None or (
                type(formatter) is logging.Formatter and formatter._fmt in (logging.BASIC_FORMAT, "%(message)s")
            )
            message = text_of((plain if default else formatter).format(record))
            fields = {
                "levelname": record.levelname,
                "created": record.created,
                "pathname": text_of(record.pathname),
                "lineno": record.lineno,
                "logger": record.name,
            }
            stream.flush()
            channel.send(severity_of(record.levelno), message, fields)
        except Exception:
            handler.handleError(record)

    logging.StreamHandler.emit = emit_record
    if getattr(logging, "lastResort", None):
        logging.lastResort.setLevel(logging.NOTSET)
    elif PYTHON_2:
        show_unhandled_records(emit_record)


def show_unhandled_records(emit_record):
    """Python 2 drops a record that no handler wants; show it as Python 3 does."""
    call_handlers = logging.Logger.callHandlers
    last_resort = logging.StreamHandler()

    def call_handlers_or_last_resort(self, record):
        logger = self
        while logger:
            if logger.handlers:
                return call_handlers(self, record)
            logger = logger.propagate and logger.parent
        return emit_record(last_resort, record)

    logging.Logger.callHandlers = call_handlers_or_last_resort


def without_own_frames(trace):
    """The traceback from the user's first frame on."""
    own = OWN_FILES + [main.__code__.co_filename, runpy.run_module.__code__.co_filename]
    machinery = ("<frozen importlib", os.path.join(os.path.dirname(os.__file__), "importlib"), pkgutil_file())
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name not in own and not name.startswith(machinery):
            return trace
        trace = trace.tb_next
    return None


def pkgutil_file():
    import pkgutil

    return pkgutil.find_loader.__code__.co_filename if PYTHON_2 else pkgutil.__file__


def send_exceptions(channel):
    """Tell uncaught exceptions as one record each. A hook that the user sets replaces this one, as in a bare run."""

    def hook(kind, value, trace):
        text = "".join(text_of(part) for part in traceback.format_exception(kind, value, without_own_frames(trace)))
        channel.send("ERROR", text.rstrip("\n"), kind="exception")

    def thread_hook(arguments):
        if arguments.exc_type is SystemExit:
            return
        text = "".join(traceback.format_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback))
        name = arguments.thread.name if arguments.thread else "?"
        channel.send("ERROR", "Exception in thread %s:\n%s" % (name, text.rstrip("\n")))

    sys.excepthook = hook
    if hasattr(threading, "excepthook"):
        threading.excepthook = thread_hook


def packaged_modules(overlay):
    """Dotted names of the modules in the user's packages."""
    import json

    try:
        with open(os.path.join(os.path.dirname(overlay), "overlay.json"), "rb") as file:
            return json.loads(file.read().decode("utf-8"))["modules"]
    except Exception:
        return []


def find_fault(module):
    """What keeps `module` from being run, None if nothing does. Imports the packages that it is in, as -m does."""
    if PYTHON_2:
        return find_fault_2(module)
    from importlib.util import find_spec

    names = [".".join(module.split(".")[: count + 1]) for count in range(module.count(".") + 1)]
    try:
        spec = find_spec(module)
    except ImportError as error:
        if error.name not in names or type(error) is ImportError:  # it is there and fails by itself
            raise
        spec = None
    if spec is None:
        return "No module named %r." % module
    if spec.submodule_search_locations is not None and find_spec(module + ".__main__") is None:
        return "%r is a package, which can't be run; name one of its modules." % module
    return None


def find_fault_2(module):
    import pkgutil

    try:
        loader = pkgutil.find_loader(module)
    except ImportError as error:
        if str(error) not in ["No module named " + part for part in [module] + module.split(".")]:
            raise
        loader = None
    if loader is None:
        return "No module named '%s'." % module
    if loader.is_package(module) and pkgutil.find_loader(module + ".__main__") is None:
        return "'%s' is a package, which can't be run; name one of its modules." % module
    return None


class TunedFlags(object):
    """Which of the flags of a trial some parser has taken, and which were left over by all that saw them.

    `argparse` is asked by what it leaves over, so nothing depends on how it works inside, abbreviations and parsers in
    parsers included; absl's flags (those of `tf.app.run` too) are asked at the end. Where no parser sees a flag nothing
    is said of it. What is found lies in a file, {flag: [options that may have been meant]} of those left over.
    """

    def __init__(self, names, path):
        self._names = names
        self._path = path
        self._taken = set()
        self._left = {}
        self._written = None

    def watch(self):
        import argparse
        import atexit

        original = argparse.ArgumentParser.parse_known_args
        flags = self

        def parse_known_args(self, args=None, namespace=None, *more, **others):
            given = list(sys.argv[1:]) if args is None else None
            if given is None:
                try:
                    given = args = list(args)
                except Exception:
                    given = []
            result = original(self, args, namespace, *more, **others)
            try:
                flags.note(given, result[1], list(self._option_string_actions))
            except Exception:
                pass
            return result

        parse_known_args.__doc__ = original.__doc__
        argparse.ArgumentParser.parse_known_args = parse_known_args
        atexit.register(self._ask_absl)

    def note(self, given, left, options):
        """A parser with `options` was given arguments and left some over."""
        given, left = _flags_in(given), _flags_in(left)
        for name in self._names:
            if name in left:
                self._left.setdefault(name, set()).update(_alike(name, options))
            elif name in given:
                self._taken.add(name)
        self._write()

    def _ask_absl(self):
        try:
            flags = sys.modules["absl.flags"].FLAGS
            if not flags.is_parsed():
                return
            known = list(flags)
            for name in self._names:
                if name in known:
                    self._taken.add(name)
                else:
                    self._left.setdefault(name, set()).update(_alike(name, ["--" + flag for flag in known]))
            self._write()
        except Exception:
            pass

    def _write(self):
        import json

        found = {name: sorted(self._left[name]) for name in self._left if name not in self._taken}
        if found == self._written or not found and self._written is None:
            return
        self._written = found
        partial = self._path + ".partial"
        with open(partial, "w") as file:
            file.write(json.dumps(found))
        os.rename(partial, self._path)


def _flags_in(arguments):
    """The names of the flags among arguments, `a` for `--a` and for `--a=1`; none after a lone `--`."""
    names = set()
    for argument in arguments:
        if argument == "--":
            break
        if hasattr(argument, "startswith") and argument.startswith("--"):
            names.add(argument[2:].partition("=")[0])
    return names


def _alike(name, options):
    """The options that differ from a flag only in case and in dashes and underscores, or by a typing error."""
    plain = {}
    for option in options:
        if option.startswith("--"):
            plain.setdefault(option.lstrip("-").lower().replace("-", "_"), []).append(option)
    wanted = name.lower().replace("-", "_")
    if wanted in plain:
        return plain[wanted]
    import difflib

    return [option for close in difflib.get_close_matches(wanted, plain, 1, 0.75) for option in plain[close]]


def watch_tuned_flags():
    """In a trial, note which of its flags the trainer knows; never at the cost of the trial."""
    names = os.environ.pop(PARAMETERS_VARIABLE, "")
    if not names:
        return
    import json

    try:
        TunedFlags(json.loads(names), os.path.join(os.environ[REPLICA_VARIABLE], PARAMETERS_FILE)).watch()
    except Exception:
        pass


def prepare_streams():
    """Lines of stdout go out as they are printed, each with one write; stderr goes out at once."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
    if not PYTHON_2:
        import faulthandler

        faulthandler.enable()  # a crash in native code tells where Python was


def main():
    module, arguments = sys.argv[1], sys.argv[2:]
    overlay = os.environ.pop(OVERLAY_VARIABLE, "")
    prepare_streams()
    channel = Channel()
    send_logging_records(channel)
    send_exceptions(channel)
    watch_tuned_flags()
    # What `python -m` has at its start.
    sys.modules["enginehouse_bootstrap"] = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv[:] = ["-m"] + arguments
    sys.path[0] = os.getcwd() if sys.version_info >= (3, 7) else ""
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = [sys.executable, "-m", module] + arguments
    if overlay and any(name.endswith(".pth") for name in os.listdir(overlay)):
        import site

        site.addsitedir(overlay)
    fault = find_fault(module)
    if fault:
        names = packaged_modules(overlay)
        if names:
            fault += " The packages hold: %s." % ", ".join(names)
        channel.send("ERROR", text_of(fault), kind="fatal")
        sys.exit(1)
    runpy._run_module_as_main(module)


if __name__ == "__main__":
    main()
