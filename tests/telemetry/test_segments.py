import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.telemetry.segments import MAX_MESSAGE_CHARS, LogWriter, SegmentStream
from enginehouse.testing.clock import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "log.jsonl"


def read_all(path: Path) -> list[tuple[str, str]]:
    return [(record.severity, record.message) for record in SegmentStream(path, "t").read(0, 10**6)[0]]


def test_reads_what_was_written(path: Path) -> None:
    clock = FakeClock()
    writer = LogWriter(path, "master-replica-0", clock)
    writer.append("INFO", "two\nlines", fields={"lineno": 3})
    clock.advance(1)
    writer.append("ERROR", "bad \x00 \ud800 é 🐍")
    stream = SegmentStream(path, "master-replica-0")
    (first, second), end = stream.read(0, 10)
    assert (first.severity, first.message, first.fields) == ("INFO", "two\nlines", {"lineno": 3})
    assert (first.task_name, first.timestamp_ns) == ("master-replica-0", FakeClock().time_ns())
    assert second.timestamp_ns == first.timestamp_ns + 10**9
    assert second.message == "bad \x00 ? é 🐍"
    assert end == path.stat().st_size and stream.read(end, 10) == ([], end)


def test_missing_file_is_an_empty_stream(path: Path) -> None:
    assert SegmentStream(path, "t").read(0, 10) == ([], 0)


def test_time_grows_strictly_even_when_the_clock_goes_back(path: Path) -> None:
    clock = FakeClock()
    writer = LogWriter(path, "t", clock)
    writer.extend([("INFO", "a", None), ("INFO", "b", None)])
    clock.advance(-100)
    writer.append("INFO", "c")
    writer.close()
    writer = LogWriter(path, "t", clock)
    writer.append("INFO", "d")
    writer.append("INFO", "e", timestamp_ns=5)
    records, _ = SegmentStream(path, "t").read(0, 10)
    start = FakeClock().time_ns()
    assert [record.timestamp_ns - start for record in records] == [0, 1, 2, 3, 4]
    identities = [record.insert_id for record in records]
    assert identities == sorted(set(identities)) and len({len(identity) for identity in identities}) == 1


def test_insert_ids_differ_between_streams(tmp_path: Path) -> None:
    for name in ("a", "b"):
        LogWriter(tmp_path / name, name, FakeClock()).append("INFO", "same")
    a, b = (SegmentStream(tmp_path / name, name).read(0, 1)[0][0] for name in ("a", "b"))
    assert a.timestamp_ns == b.timestamp_ns and a.insert_id != b.insert_id


@pytest.mark.parametrize("kept", [1, 20, -2, -1])
def test_torn_line_is_never_read_and_the_next_writer_goes_on(path: Path, kept: int) -> None:
    writer = LogWriter(path, "t")
    writer.append("INFO", "whole")
    whole = path.stat().st_size
    writer.append("INFO", "torn")
    writer.close()
    line = path.read_bytes()[whole:]
    os.truncate(path, whole + len(line[:kept]))
    stream = SegmentStream(path, "t")
    records, offset = stream.read(0, 10)
    assert [record.message for record in records] == ["whole"] and offset == whole
    LogWriter(path, "t").append("INFO", "next")
    # A line that lacks its newline alone is a record; one that lacks more is none.
    assert [record.message for record in stream.read(offset, 10)[0]] == (["torn"] if kept == -1 else []) + ["next"]


def test_long_message_is_cut_and_says_so(path: Path) -> None:
    LogWriter(path, "t").append("INFO", "x" * (5 * 1024 * 1024))
    [(_, message)] = read_all(path)
    assert message.startswith("x" * MAX_MESSAGE_CHARS + " … [")
    assert message.endswith(f"[{5 * 1024 * 1024 - MAX_MESSAGE_CHARS} more characters were left out]")


def test_line_longer_than_one_read(path: Path) -> None:
    writer = LogWriter(path, "t")
    for _ in range(3):
        writer.append("INFO", "\x01" * MAX_MESSAGE_CHARS)  # six bytes each in JSON
    writer.close()
    assert [len(message) for _, message in read_all(path)] == [MAX_MESSAGE_CHARS] * 3
    LogWriter(path, "t", FakeClock()).append("INFO", "after")
    times = [record.timestamp_ns for record in SegmentStream(path, "t").read(0, 9)[0]]
    assert times == sorted(set(times))


def test_failed_write_leaves_a_usable_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LogWriter(path, "t")
    writer.append("INFO", "one")
    write = os.write

    def full_disk(descriptor: int, data: bytes) -> int:
        if data.startswith(b'{"t"') and len(data) > 10:
            return write(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk)
        with pytest.raises(OSError, match="No space"):
            writer.append("INFO", "lost")
    writer.append("INFO", "two")
    assert read_all(path) == [("INFO", "one"), ("INFO", "two")]


def test_threads_may_share_a_writer(path: Path) -> None:
    writer = LogWriter(path, "t")

    def write(name: int) -> None:
        for count in range(200):
            writer.append("INFO", f"{name}:{count}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records, _ = SegmentStream(path, "t").read(0, 10**6)
    assert len({record.message for record in records}) == 800
    times = [record.timestamp_ns for record in records]
    assert times == sorted(set(times))


def test_foreign_lines_are_passed_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('not json\n{"a": 1}\n[]\n' + json.dumps({"t": 1, "s": "INFO", "m": "ok"}) + "\n")
    assert read_all(path) == [("INFO", "ok")]


@given(messages=st.lists(st.text()), limit=st.integers(1, 5))
def test_any_text_survives_any_page_size(tmp_path_factory: pytest.TempPathFactory, messages, limit) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    LogWriter(path, "t").extend([("INFO", message, None) for message in messages])
    stream, offset, seen = SegmentStream(path, "t"), 0, []
    while page := stream.read(offset, limit):
        records, offset = page
        if not records:
            break
        assert len(records) <= limit
        seen += [record.message for record in records]
    assert seen == messages
