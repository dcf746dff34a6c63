import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.replica.output import MAX_LINE_BYTES, PROGRESS_EVERY_S, Entry, Findings, OutputReader
from enginehouse.testing.clock import FakeClock


def reader(severity: str = "ERROR") -> OutputReader:
    return OutputReader(severity, Findings(), FakeClock())


def read(data: bytes, severity: str = "ERROR") -> list[Entry]:
    stream = reader(severity)
    return stream.feed(data) + stream.close()


def texts(entries: list[Entry]) -> list[str]:
    return [message for _, message, _ in entries]


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("plain text", "ERROR"),
        ("I0102 03:04:05.678901 123 task.py:7] epoch 1", "INFO"),
        ("W0000 00:00:1795387860.683103    8773 cpu_feature_guard.cc:227] This TensorFlow", "WARNING"),
        ("E20260102 03:04:05.678901 123 a/b.cc:7] no", "ERROR"),
        ("F0102 03:04:05.678901 123 a.cc:7] dead", "CRITICAL"),
        ("2026-01-02 03:04:05.678901: I tensorflow/core/util/port.cc:153] oneDNN", "INFO"),
        ("2026-01-02 03:04:05.678901: W tensorflow/stream_executor/x.cc:64] no dso", "WARNING"),
        ("WARNING:tensorflow:From x.py:3: old", "WARNING"),
        ("INFO:root:hello", "INFO"),
        ("DEBUG:a.b:x", "DEBUG"),
        ("CRITICAL:root:x", "CRITICAL"),
        ("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR", "WARNING"),
        ("ERROR: No matching distribution", "ERROR"),
        ("[INFO] started", "INFO"),
        ("2026-01-02 03:04:05,678 - my.module - WARNING - low", "WARNING"),
        ("2026-01-02 03:04:05 INFO started", "INFO"),
        ("[03:04:05] WARNING: /workspace/src/learner.cc:790: ", "WARNING"),
        ("/usr/lib/x.py:12: UserWarning: careful", "WARNING"),
        ("<frozen importlib._bootstrap>:241: RuntimeWarning: size changed", "WARNING"),
        ("To enable the following instructions: AVX2 FMA, in other operations, rebuild", "INFO"),
        ("INFORMATION is here", "ERROR"),
        ("ERRORS: 3", "ERROR"),
        ("I am no glog line", "ERROR"),
        ("1234567890", "ERROR"),
        ("", "ERROR"),
    ],
)
def test_severity_of_a_line_on_stderr(line: str, severity: str) -> None:
    assert read(line.encode() + b"\n") == [(severity, line, None)]


def test_lines_of_stdout_are_info() -> None:
    assert read(b"a\nb\n\nWARNING:root:c\n", "INFO") == [
        ("INFO", "a", None),
        ("INFO", "b", None),
        ("INFO", "", None),
        ("WARNING", "WARNING:root:c", None),
    ]


def test_an_indented_line_goes_on_with_the_severity_above() -> None:
    assert [severity for severity, _, _ in read(b"x.py:3: UserWarning: a\n  warn('a')\nnext\n")] == [
        "WARNING",
        "WARNING",
        "ERROR",
    ]


def test_traceback_is_one_record() -> None:
    trace = (
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n'
        "    f()\n"
        "KeyError: 'a'\n"
        "\n"
        "During handling of the above exception, another exception occurred:\n"
        "\n"
        "Traceback (most recent call last):\n"
        '  File "a.py", line 3, in <module>\n'
        "ValueError: b"
    )
    stream = reader()
    entries = stream.feed(b"before\n" + trace.encode() + b"\nafter\n")
    assert entries == [("ERROR", "before", None), ("ERROR", trace, None), ("ERROR", "after", None)]
    assert stream._findings.traceback == trace


def test_two_tracebacks_are_two_records() -> None:
    one = "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'a'"
    stream = reader()
    assert texts(stream.feed(f"{one}\n{one}\n".encode())) == [one]
    assert stream.is_waiting and texts(stream.idle()) == [one] and not stream.is_waiting


def test_exception_group() -> None:
    try:
        raise ExceptionGroup("many", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])])
    except ExceptionGroup as error:
        import traceback

        text = "".join(traceback.format_exception(error)).rstrip("\n")
    stream = reader()
    assert texts(stream.feed(text.encode() + b"\nafter\n")) == [text, "after"]


def test_traceback_cut_off_by_the_end() -> None:
    assert texts(read(b'Traceback (most recent call last):\n  File "a.py", line 1')) == [
        'Traceback (most recent call last):\n  File "a.py", line 1'
    ]


def test_invalid_utf8_is_replaced() -> None:
    assert texts(read(b"caf\xe9 \xff\n")) == ["caf\ufffd \ufffd"]


def test_characters_cut_by_a_read_are_whole() -> None:
    stream = reader("INFO")
    entries = [entry for byte in "é🐍\nü".encode() for entry in stream.feed(bytes([byte]))]
    assert texts(entries + stream.close()) == ["é🐍", "ü"]


def test_huge_line_becomes_several_records() -> None:
    stream, data = reader(), b"x" * (5 * 1024 * 1024)
    entries: list[Entry] = []
    for start in range(0, len(data), 65536):
        entries += stream.feed(data[start : start + 65536])
        assert len(stream._pending) <= MAX_LINE_BYTES
    entries += stream.feed(b"\nnext\n") + stream.close()
    assert "".join(texts(entries)) == data.decode() + "next"
    assert max(map(len, texts(entries))) <= MAX_LINE_BYTES


def test_progress_bar_gives_a_line_now_and_then() -> None:
    clock = FakeClock()
    stream = OutputReader("ERROR", Findings(), clock)
    entries: list[Entry] = []
    for percent in range(101):
        entries += stream.feed(f"\r{percent:3d}%|{'#' * (percent // 10):10}| {percent}/100".encode())
        clock.advance(PROGRESS_EVERY_S / 50)
    entries += stream.feed(b"\ndone\n")
    assert entries == [
        ("INFO", " 50%|#####     | 50/100", None),
        ("INFO", "100%|##########| 100/100", None),
        ("INFO", "100%|##########| 100/100", None),
        ("ERROR", "done", None),
    ]


def test_backspaces_and_colours() -> None:
    bar = b"\x1b[1m1/2\x1b[0m \x1b[32m---\x1b[0m loss: 1.0" + b"\b" * 20 + b"\r\x1b[1m2/2\x1b[0m loss: 0.5\n"
    assert read(bar, "INFO") == [("INFO", "2/2 loss: 0.5", None)]


@pytest.mark.parametrize("cut", range(1, 8))
def test_carriage_return_and_newline_end_one_line(cut: int) -> None:
    data = b"abc\r\ndef\r\n"
    stream = reader()
    assert texts(stream.feed(data[:cut]) + stream.feed(data[cut:]) + stream.close()) == ["abc", "def"]


def mark(severity: str, message: str, **rest: object) -> bytes:
    return b"\x1e" + json.dumps({"s": severity, "m": message, **rest}).encode() + b"\n"


def test_records_of_the_bootstrap() -> None:
    data = b"printed\nhalf a line" + mark("WARNING", "logged\ntwice", f={"lineno": 3}) + b"rest\n"
    for size in (1, 7, len(data)):
        stream = reader("INFO")
        entries = [entry for start in range(0, len(data), size) for entry in stream.feed(data[start : start + size])]
        assert entries == [
            ("INFO", "printed", None),
            ("INFO", "half a line", None),
            ("WARNING", "logged\ntwice", {"lineno": 3}),
            ("INFO", "rest", None),
        ]


def test_what_ended_the_module_is_kept() -> None:
    stream = reader("INFO")
    stream.feed(mark("ERROR", "Traceback …: uncaught", k="exception") + mark("ERROR", "No module", k="fatal"))
    stream.feed(mark("ERROR", "failed\nTraceback (most recent call last):\nKeyError: 1"))
    findings = stream._findings
    assert (findings.uncaught, findings.fatal) == ("Traceback …: uncaught", "No module")
    assert findings.traceback == "Traceback (most recent call last):\nKeyError: 1"


def test_the_users_own_use_of_the_mark_is_text() -> None:
    assert texts(read(b'\x1enot json\n\x1e{"a": 1}\n\x1e[]\n', "INFO")) == ["not json", '{"a": 1}', "[]"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]))), st.integers(1, 40))
def test_no_line_is_lost_however_it_arrives(lines: list[str], size: int) -> None:
    data = "".join(f"> {line}\n" for line in lines).encode()
    stream = reader("INFO")
    entries = [entry for start in range(0, len(data), size) for entry in stream.feed(data[start : start + size])]
    assert texts(entries + stream.close()) == [f"> {line}" for line in lines]


@given(st.binary(), st.integers(1, 20))
def test_no_bytes_break_it(data: bytes, size: int) -> None:
    stream = reader()
    for start in range(0, len(data), size):
        stream.feed(data[start : start + size])
        stream.idle()
    assert all(isinstance(message, str) for message in texts(stream.close()))
