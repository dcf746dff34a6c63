"""The engine's side of one waiting interpreter (replica/zygote.py): starts it, has it fork runners, ends it.

Called by `backends.local.warm`, under its lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginehouse.replica import zygote as program
from enginehouse.replica.environment import Interpreter

_PROGRAM = Path(program.__file__)
_COMMAND_ROOM = 4096
_VARIABLES_ROOM = 64 * 1024
_FORK_LIMIT_S = 2 * program.EXEC_LIMIT_S
_END_LIMIT_S = 5.0
_ERROR_CHARS = 1000


class Zygote:
    """One interpreter that imports, then waits.

    Args:
        interpreter: which, with which variables, importing what.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.is_ready = False
        self.error = ""
        """Why it came to nothing, once it did."""
        self.forks = 0
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(True)
        variables = {
            **interpreter.fixed_variables,
            "PATH": interpreter.variables["PATH"],
            program.ROOM_VARIABLE: "." * _VARIABLES_ROOM,
        }
        python = str(interpreter.environment.python)
        command = [python, str(_PROGRAM), str(theirs.fileno()), "." * _COMMAND_ROOM]
        # Its runners are to start with SIGTERM blocked, as those that the backend starts itself.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # what a replica has: the streams keep what they found at their start
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        title = f"runtime {interpreter.environment.runtime_name}, waiting with {', '.join(interpreter.preload)}"
        fixed = {_text(name): _text(value) for name, value in interpreter.fixed_variables.items()}
        self._send({"modules": list(interpreter.preload), "title": title, "variables": fixed})

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory; 0 when it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def look(self) -> None:
        """Find out, without waiting, whether it is ready or has failed."""
        if not self.error and not self.is_ready and select.select([self._channel], [], [], 0)[0]:
            answer = self._receive(_FORK_LIMIT_S)
            self.error = self._last_words() if answer is None else str(answer["error"])
            self.is_ready = not self.error
        elif not self.error and self._process.poll() is not None:
            self.error = self._last_words()
            self.is_ready = False

    def fork(
        self, directory: Path, lock: int, command: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> None:
        """Have it start a runner that holds `lock`, and beside it a child that waits for the runner's word.

        Args:
            directory: the replica's.
            command: of the runner, to which the descriptors are added.
            variables: of the runner.
            log: takes what the runner prints.

        Raises:
            OSError: it may or may not have started one; whether it did, the lock tells. It is of no more use.
        """
        order = {
            "directory": _text(str(directory)),
            "command": [_text(each) for each in command],
            "variables": {_text(name): _text(value) for name, value in variables.items()},
            "log": _text(str(log)),
        }
        try:
            socket.send_fds(self._channel, [b"\0"], [lock])
            self._send(order)
            answer = self._receive(_FORK_LIMIT_S)
        except OSError as error:
            self.error = str(error)
            raise
        if answer is None or "error" in answer:
            self.error = str(answer["error"]) if answer else self._last_words()
            raise OSError(f"the waiting interpreter could not fork: {self.error}")
        self.forks += 1

    def close(self) -> None:
        """End it; the runners that it has started go on."""
        self._channel.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_LIMIT_S)
        assert self._process.stdout and self._process.stderr
        self._process.stdout.close()
        self._process.stderr.close()

    def _send(self, value: object) -> None:
        body = json.dumps(value).encode()
        with contextlib.suppress(BrokenPipeError):  # `look` finds it dead
            self._channel.sendall(struct.pack("!I", len(body)) + body)

    def _receive(self, limit_s: float) -> dict[str, object] | None:
        """The next message, None when it has ended or says nothing for too long."""
        data = b""
        deadline = time.monotonic() + limit_s
        while len(data) < 4 or len(data) < 4 + struct.unpack("!I", data[:4])[0]:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._channel], [], [], left_s)[0]:
                return None
            try:
                part = self._channel.recv(65536)
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        message: dict[str, object] = json.loads(data[4:])
        return message

    def _last_words(self) -> str:
        """The end of what it has printed, after its death or silence."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            _out, err = self._process.communicate(timeout=_END_LIMIT_S)
            if err.strip():
                return err.decode(errors="replace").strip()[-_ERROR_CHARS:]
        return f"it ended with status {self._process.returncode}"


def _text(value: str) -> str:
    """Bytes as characters, which every Python's JSON carries."""
    return os.fsencode(value).decode("latin-1")
