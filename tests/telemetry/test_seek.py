"""Finding a moment in a long log."""

from pathlib import Path

import pytest

from enginehouse.telemetry.joblog import JobLog
from enginehouse.telemetry.segments import LogWriter, SegmentStream
from enginehouse.testing.clock import FakeClock

RECORDS = 5000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    clock = FakeClock(0)
    writer = LogWriter(path, "master-replica-0", clock)
    for i in range(RECORDS):
        clock.advance(1)
        writer.append("INFO", f"line {i} " + "x" * (i % 97))
    writer.close()
    return path


@pytest.mark.parametrize("second", [0, 1, 2, 1234, RECORDS - 1, RECORDS, RECORDS + 1])
def test_nothing_from_that_moment_on_is_missed_and_little_is_read_before(path: Path, second: int) -> None:
    stream = SegmentStream(path, "master-replica-0")
    records, _offset = stream.read(stream.seek(second * 10**9), RECORDS)
    times = [record.timestamp_ns // 10**9 for record in records]
    assert [t for t in times if t >= second] == list(range(max(second, 1), RECORDS + 1))
    assert len([t for t in times if t < second]) < 1500


def test_a_log_of_several_streams_starts_at_the_moment_in_each(path: Path, tmp_path: Path) -> None:
    log = JobLog([SegmentStream(path, "a"), SegmentStream(tmp_path / "nothing", "b")])
    records, _cursor = log.read(log.cursor_at(4900 * 10**9), RECORDS)
    assert records[-1].message.startswith(f"line {RECORDS - 1}")
    assert records[0].timestamp_ns <= 4900 * 10**9
