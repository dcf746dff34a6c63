from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.errors import InvalidArgument
from enginehouse.telemetry.joblog import JobLog
from enginehouse.telemetry.segments import LogRecord, LogWriter, SegmentStream
from enginehouse.testing.clock import FakeClock

NAMES = ("service", "master-replica-0", "worker-replica-0")


def order(record: LogRecord) -> tuple[int, str]:
    return record.timestamp_ns, record.insert_id


def test_merges_by_time(tmp_path: Path) -> None:
    clock = FakeClock()
    writers = [LogWriter(tmp_path / name, name, clock) for name in NAMES]
    for count in range(10):
        writers[count % 3].append("INFO", str(count))
        clock.advance(0.5)
    log = JobLog([SegmentStream(tmp_path / name, name) for name in NAMES])
    records, cursor = log.read("", 4)
    assert [record.message for record in records] == ["0", "1", "2", "3"]
    rest, cursor = log.read(cursor, 100)
    assert [record.message for record in rest] == ["4", "5", "6", "7", "8", "9"]
    assert [record.task_name for record in rest[:3]] == ["master-replica-0", "worker-replica-0", "service"]
    assert log.read(cursor, 100) == ([], cursor)


def test_a_stream_that_appears_later_is_read_from_its_start(tmp_path: Path) -> None:
    LogWriter(tmp_path / "a", "a").append("INFO", "first")
    _, cursor = JobLog([SegmentStream(tmp_path / "a", "a")]).read()
    LogWriter(tmp_path / "b", "b").append("INFO", "second")
    streams = [SegmentStream(tmp_path / name, name) for name in ("a", "b")]
    assert [record.message for record in JobLog(streams).read(cursor)[0]] == ["second"]


@pytest.mark.parametrize("cursor", ["!!", "e30x", "W10", "eyJhIjotMX0", "eyJhIjoiYiJ9", "é"])
def test_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        JobLog([]).read(cursor)
    assert error.value.field == "cursor"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(NAMES), st.integers(0, 3)),
        st.tuples(st.just("extend"), st.sampled_from(NAMES), st.integers(0, 4)),
        st.tuples(st.just("read"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("advance"), st.integers(-2, 2), st.just(0)),
        st.tuples(st.just("reopen"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("tear"), st.sampled_from(NAMES), st.integers(1, 30)),
    ),
    max_size=40,
)


@given(STEPS)
def test_any_interleaving_gives_every_record_once_and_keeps_each_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object, int]]
) -> None:
    folder, clock = tmp_path_factory.mktemp("log"), FakeClock()
    writers: dict[str, LogWriter] = {}
    written: dict[str, list[str]] = {name: [] for name in NAMES}
    seen: dict[str, list[str]] = {name: [] for name in NAMES}
    log = JobLog([SegmentStream(folder / name, name) for name in NAMES])
    cursor = ""

    def read(limit: int) -> int:
        nonlocal cursor
        records, cursor = log.read(cursor, limit)
        assert len(records) <= limit
        assert [order(record) for record in records] == sorted(order(record) for record in records)
        for record in records:
            seen[record.task_name].append(record.message)
        return len(records)

    count = 0
    for action, subject, number in steps:
        if action == "read":
            read(int(str(subject)))
            continue
        if action == "advance":
            clock.advance(float(str(subject)))
            continue
        name = str(subject)
        if action == "reopen" or name not in writers:
            writers[name] = LogWriter(folder / name, name, clock)
        if action == "tear":  # a writer killed in the middle of a line, and the one that comes after it
            with (folder / name).open("ab") as file:
                file.write(b'{"t":1,"s":"INFO","m":"half a line'[:number])
            writers[name] = LogWriter(folder / name, name, clock)
        batch = [str(count + index) for index in range(1 if action == "append" else number)]
        count += len(batch)
        if action == "append":
            writers[name].append("INFO", batch[0], fields={"n": number} if number else None)
            written[name] += batch
        elif action == "extend":
            writers[name].extend([("INFO", message, None) for message in batch])
            written[name] += batch
    while read(3):
        pass
    assert seen == written
