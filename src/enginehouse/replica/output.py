"""Turns what a user process writes into log records.

In come the bytes of its stdout or stderr as they arrive, out come (severity, message, fields). Called by
`replica.process`.

    * A line is a record: INFO from stdout, ERROR from stderr, unless it begins as the loggers of Python, Abseil,
      TensorFlow or XGBoost begin theirs.
    * A record of Python's `logging` comes from the bootstrap as one line of JSON after the byte RECORD_MARK.
    * A traceback is one record.
    * Progress bars, which overwrite themselves with carriage returns or backspaces, give one line now and then.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from enginehouse.core.clock import Clock

Entry = tuple[str, str, dict[str, Any] | None]
"""Severity, message, fields."""

RECORD_MARK = b"\x1e"
"""Begins a record of the bootstrap; `replica/bootstrap.py` has the same byte."""

MAX_LINE_BYTES = 256 * 1024
"""A longer line becomes several records."""

PROGRESS_EVERY_S = 10.0
_MAX_RECORD_BYTES = 16 * 1024 * 1024
_MAX_TRACEBACK_LINES = 2000

_SPECIAL = re.compile(rb"[\r\x08\x1b\x1e]")
_OVERWRITE = re.compile(rb"[\r\x08]+")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")  # ECMA-48

_LEVELS = "DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL"
_SEVERITY = re.compile(
    r"(?P<glog>[IWEF])\d{4}(?:\d{4})? \d\d:\d\d:\d+\.\d+\s+\d+ [^\]\s]+:\d+\] "  # glog: W0102 03:04:05.67 9 a.cc:1] …
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: (?P<tf>[IWEF]) \S"  # TensorFlow's C++: 2026-01-02 03:04:05.678: W …
    r"|(?P<python>DEBUG|INFO|WARNING|ERROR|CRITICAL):[\w.\-/]*:"  # logging.basicConfig, absl without a prefix
    rf"|\[?[\d:.,TZ\- ]{{8,30}}\]?[ \-|:]+(?:[\w.\-]+ - )?\[?(?P<timed>{_LEVELS})\]?(?=[ :|]|$)"
    rf"|\[?(?P<word>{_LEVELS})(?:\]|:| -| \|)(?= |$)"
    r"|(?P<warning>\S.*?:\d+: \w*Warning: )"  # warnings.warn
    r"|(?P<hint>To enable the following instructions: )"  # the second line of TensorFlow's greeting
)
_OF_LETTER = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_OF_WORD = {"WARN": "WARNING", "FATAL": "CRITICAL"}
_FIRST = frozenset("IWEFDC[T0123456789")

_TRACEBACK = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):")
_GROUP_END = re.compile(r" +\+-{20,}$")
_TRACEBACK_IN_TEXT = re.compile(r"^(?:  \+ Exception Group )?Traceback \(most recent call last\):", re.MULTILINE)
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


@dataclass
class Findings:
    """What the output says of why the process ends.

    Attributes:
        fatal: what kept user code from running, in the bootstrap's words.
        uncaught: the traceback of the main thread's uncaught exception.
        traceback: the last traceback of any other kind.
    """

    fatal: str = ""
    uncaught: str = ""
    traceback: str = ""


class OutputReader:
    """One of the two output streams.

    Args:
        default_severity: of a line that doesn't tell its own.
        findings: shared by the streams of a process.
        clock: says when a progress bar was last told of.
    """

    def __init__(self, default_severity: str, findings: Findings, clock: Clock) -> None:
        self._default = default_severity
        self._clock = clock
        self._pending = b""
        self._overwritten = False  # the pending line has replaced an earlier state of itself
        self._progress_told = clock.monotonic()
        self._previous = default_severity
        self._traceback = _Traceback()
        self._findings = findings

    @property
    def is_waiting(self) -> bool:
        """Whether `idle` would return something."""
        return self._traceback.may_be_over

    def feed(self, data: bytes) -> list[Entry]:
        """Take what arrived; returns the records that are complete."""
        entries: list[Entry] = []
        whole, newline, rest = (self._pending + data).rpartition(b"\n")
        self._pending = rest
        if newline and not self._overwritten and len(whole) <= MAX_LINE_BYTES and not _SPECIAL.search(whole):
            for text in whole.decode("utf-8", "replace").split("\n"):
                self._line(text, entries)
        elif newline:
            for line in whole.split(b"\n"):
                self._special_line(line, entries)
        if rest:
            self._shorten_pending(entries)
        return entries

    def idle(self) -> list[Entry]:
        """Nothing came for a moment: returns what waited only to see whether more belongs to it."""
        return self._end_traceback() if self._traceback.may_be_over else []

    def close(self) -> list[Entry]:
        """The stream is at its end: returns all that is left."""
        entries: list[Entry] = []
        if self._pending:
            self._special_line(self._pending, entries)
            self._pending = b""
        return entries + self._end_traceback()

    def _special_line(self, line: bytes, entries: list[Entry]) -> None:
        """A whole line that may hold a record, control characters or too much."""
        line, mark, record = line.partition(RECORD_MARK)
        line = line.removesuffix(b"\r")
        states = [state for state in _OVERWRITE.split(line) if state.strip()]
        if len(states) > 1 or self._overwritten or line[:1] in (b"\r", b"\x08"):
            self._overwritten = False
            self._progress_told = self._clock.monotonic()
            if states:
                self._progress(states[-1], entries)
        elif states or not mark:
            text = states[0] if states else b""
            for start in range(0, max(len(text), 1), MAX_LINE_BYTES):
                self._line(_clean(text[start : start + MAX_LINE_BYTES]), entries)
        if mark:
            self._record(record, entries)

    def _shorten_pending(self, entries: list[Entry]) -> None:
        """Keep the unfinished line small: of a progress bar only the last state, of a huge line only its end."""
        pending = self._pending
        if RECORD_MARK in pending:
            if len(pending) > _MAX_RECORD_BYTES:
                self._special_line(pending, entries)
                self._pending = b""
            return
        end = pending[-1:] if pending[-1:] == b"\r" else b""  # may be the first half of \r\n
        states = [state for state in _OVERWRITE.split(pending) if state.strip()]
        if len(states) > 1 or (states and pending[:1] in (b"\r", b"\x08")):
            self._overwritten = True
            self._pending = states[-1] + end
            if self._clock.monotonic() - self._progress_told >= PROGRESS_EVERY_S:
                self._progress_told = self._clock.monotonic()
                self._progress(states[-1], entries)
        while len(self._pending) > MAX_LINE_BYTES:
            self._line(_clean(self._pending[:MAX_LINE_BYTES]), entries)
            self._pending = self._pending[MAX_LINE_BYTES:]

    def _progress(self, state: bytes, entries: list[Entry]) -> None:
        text = _clean(state).rstrip()
        match = _SEVERITY.match(text)
        entries.extend(self._end_traceback())
        entries.append((_severity(match) if match else "INFO", text, None))

    def _record(self, data: bytes, entries: list[Entry]) -> None:
        """A record of the bootstrap: {"s": severity, "m": message, "f": fields, "k": kind}."""
        try:
            value = json.loads(data)
            severity, message, kind = str(value["s"]), str(value["m"]), value.get("k")
            fields = dict(value.get("f") or {})
        except (ValueError, KeyError, TypeError):
            self._line(_clean(data), entries)  # the user's own use of the byte
            return
        entries.extend(self._end_traceback())
        if kind == "fatal":
            self._findings.fatal = message
        elif kind == "exception":
            self._findings.uncaught = message
        else:
            self._remember_traceback(message)
        entries.append((severity, message, fields or None))

    def _line(self, text: str, entries: list[Entry]) -> None:
        if self._traceback.lines or text[-1:] == ":":
            if self._traceback.takes(text):
                return
            entries.extend(self._end_traceback())
            if self._traceback.takes(text):  # another one begins
                return
        if text[:1] in _FIRST or "Warning: " in text:
            match = _SEVERITY.match(text)
            severity = _severity(match) if match else self._default
        elif text[:1] in (" ", "\t"):
            severity = self._previous  # goes on with what the line above began
        else:
            severity = self._default
        self._previous = severity
        entries.append((severity, text, None))

    def _end_traceback(self) -> list[Entry]:
        message = self._traceback.end()
        if not message:
            return []
        self._previous = self._default
        self._findings.traceback = message
        return [("ERROR", message, None)]

    def _remember_traceback(self, message: str) -> None:
        if match := _TRACEBACK_IN_TEXT.search(message):
            self._findings.traceback = message[match.start() :]


class _Traceback:
    """Gathers the lines of a Python traceback, with the exceptions that it is chained to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._in_frames = False
        self._in_group = False  # of an exception group all lines are indented, the last is a rule

    @property
    def may_be_over(self) -> bool:
        """Whether the exception's own line was seen."""
        return bool(self.lines) and (
            _GROUP_END.match(self.lines[-1]) is not None if self._in_group else not self._in_frames
        )

    def takes(self, text: str) -> bool:
        """Add the line if it belongs here."""
        indented = text[:1] in (" ", "\t")
        if start := _TRACEBACK.match(text):
            if self.may_be_over and self.lines[-1] not in ("", *_CHAINED):
                return False
            self._in_frames, self._in_group = True, start[0].startswith(" ")
        elif not self.lines or len(self.lines) >= _MAX_TRACEBACK_LINES:
            return False
        elif self._in_group:
            if not indented and text and text not in _CHAINED:
                return False
        elif self._in_frames:
            self._in_frames = indented
        elif text and text not in _CHAINED:
            return False
        self.lines.append(text)
        return True

    def end(self) -> str:
        """The gathered text, "" if there is none; begins anew."""
        text = "\n".join(self.lines).rstrip("\n")
        self.lines = []
        self._in_frames = self._in_group = False
        return text


def _clean(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return _ESCAPES.sub("", text) if "\x1b" in text else text


def _severity(match: re.Match[str]) -> str:
    if letter := match["glog"] or match["tf"]:
        return _OF_LETTER[letter]
    if word := match["python"] or match["timed"] or match["word"]:
        return _OF_WORD.get(word, word)
    return "WARNING" if match["warning"] else "INFO"
