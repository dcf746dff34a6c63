"""What a trial reports, wherever it writes it, and which of it is the metric that was asked for."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from enginehouse.core.clock import SystemClock
from enginehouse.core.names import ObjectUri
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.storage.helpers import put
from enginehouse.testing.summaries import scalar_record, version_record
from enginehouse.tuning.metrics import TrialMetrics
from enginehouse.tuning.metrics_sources import BucketDirectory, DiskDirectory, Point

Write = Callable[[str, bytes], None]
EVENTS = "events.out.tfevents.1700000000.host"


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[TrialMetrics, Write]:
    """A trial's metrics and a way to write a file into its job-dir."""
    if request.param == "disk":

        def write_file(path: str, data: bytes) -> None:
            file = tmp_path / "job" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

        return TrialMetrics(DiskDirectory(tmp_path / "job")), write_file
    store = LocalObjectStore(tmp_path / "objects", SystemClock())
    store.create_bucket("bucket")

    def write_object(path: str, data: bytes) -> None:
        put(store, f"jobs/1/{path}", data, bucket="bucket")

    put(store, f"jobs/10/{EVENTS}", scalar_record("another trial's", 1, 1.0), bucket="bucket")
    return TrialMetrics(BucketDirectory(store, ObjectUri("bucket", "jobs/1"))), write_object


def events(*scalars: tuple[str, int, float], time_s: float = 1.0) -> bytes:
    records = [scalar_record(tag, step, value, time_s + index) for index, (tag, step, value) in enumerate(scalars)]
    return version_record(time_s) + b"".join(records)


def points(metrics: TrialMetrics, tag: str) -> list[tuple[int, float]]:
    metric = metrics.find(tag)
    return [(point.step, point.value) for point in metric.points] if metric else []


def test_nothing_is_there_yet(place: tuple[TrialMetrics, Write]) -> None:
    metrics, _write = place
    assert not metrics.poll()
    assert metrics.find("acc") is None
    assert "never reported, nor any other" in metrics.why_missing("acc")


def test_files_are_followed_while_they_grow(place: tuple[TrialMetrics, Write]) -> None:
    metrics, write = place
    data = events(("acc", 1, 0.5), ("acc", 2, 0.75))
    write(f"eval/{EVENTS}", data[:-9])
    assert metrics.poll()
    assert points(metrics, "acc") == [(1, 0.5)]
    assert not metrics.poll()
    write(f"eval/{EVENTS}", data)
    assert metrics.poll()
    assert points(metrics, "acc") == [(1, 0.5), (2, 0.75)]


def test_a_file_that_was_replaced_is_read_anew_and_one_that_vanished_is_remembered(
    place: tuple[TrialMetrics, Write],
) -> None:
    metrics, write = place
    write(EVENTS, events(("acc", 1, 0.5), ("acc", 2, 0.25), time_s=1.0))
    write(EVENTS + ".1", events(("acc", 3, 0.125)))
    metrics.poll()
    write(EVENTS, events(("acc", 1, 1.0), time_s=2.0))
    metrics.poll()
    assert points(metrics, "acc") == [(1, 1.0), (3, 0.125)]


def test_several_writers_are_merged_by_step_and_the_last_written_counts(place: tuple[TrialMetrics, Write]) -> None:
    metrics, write = place
    write(EVENTS, events(("acc", 10, 0.5), ("acc", 30, 0.25), time_s=100.0))
    write(EVENTS + ".restarted", events(("acc", 20, 0.75), ("acc", 30, 1.0), time_s=200.0))
    metrics.poll()
    assert points(metrics, "acc") == [(10, 0.5), (20, 0.75), (30, 1.0)]
    metric = metrics.find("acc")
    assert metric is not None
    assert metric.last() == Point(30, 1.0, 201.0)
    assert not metric.notes


def test_the_best_value(place: tuple[TrialMetrics, Write]) -> None:
    metrics, write = place
    write(EVENTS, events(("loss", 1, 3.0), ("loss", 2, 1.0), ("loss", 3, math.nan), ("nan", 1, math.nan)))
    metrics.poll()
    loss, only_nan = metrics.find("loss"), metrics.find("nan")
    assert loss is not None and only_nan is not None
    assert (loss.best(maximize=False).value, loss.best(maximize=True).value) == (1.0, 3.0)
    assert math.isnan(loss.last().value)
    assert math.isnan(only_nan.best(maximize=True).value)


@pytest.mark.parametrize(
    ("written", "asked", "found", "note"),
    [
        ({"": "model/acc"}, "acc", "model/acc", "'model/acc' is taken for it"),
        ({"": "top_acc"}, "acc", "top_acc", "'top_acc' is taken for it"),
        ({"": "precision"}, "ion", None, ""),
        ({"a": "model/acc", "b": "other/acc"}, "acc", None, ""),
        ({"a": "model/acc", "b": "top_acc"}, "acc", "model/acc", "'model/acc' is taken"),
        ({"a": "acc", "b": "model/acc"}, "acc", "acc", ""),
        (
            {"train": "epoch_acc", "validation": "epoch_acc"},
            "acc",
            "epoch_acc",
            "of validation counts; the one of train",
        ),
        ({"train": "epoch_acc", "validation": "epoch_acc"}, "val_acc", "epoch_acc", "'epoch_acc' is taken"),
        ({"train": "epoch_acc"}, "val_acc", None, ""),
        ({"": "loss", "eval_holdout": "loss"}, "loss", "loss", "the one of the job directory itself is of training"),
        ({"a": "acc", "b": "acc"}, "acc", "acc", "several places (a, b)"),
    ],
)
def test_a_tag_is_found(
    place: tuple[TrialMetrics, Write], written: dict[str, str], asked: str, found: str | None, note: str
) -> None:
    metrics, write = place
    for index, (directory, tag) in enumerate(written.items()):
        write(f"{directory}/{EVENTS}".lstrip("/"), events((tag, 1, float(index))))
    metrics.poll()
    metric = metrics.find(asked)
    if metric is None:
        assert found is None
        assert all(tag in metrics.why_missing(asked) for tag in written.values())
    else:
        assert metric.tag == found
        assert note in " ".join(metric.notes)
        assert bool(note) == bool(metric.notes)
        if len(written) > 1 and "eval" in "".join(written) + note:
            assert metric.last().value == 1.0


def test_a_damaged_file_is_told_and_the_rest_of_it_counts(place: tuple[TrialMetrics, Write]) -> None:
    metrics, write = place
    bad = bytearray(events(("acc", 1, 0.5), ("acc", 2, 0.75)))
    bad[-60] ^= 0xFF
    write(EVENTS, bytes(bad) + scalar_record("acc", 3, 1.0))
    metrics.poll()
    assert points(metrics, "acc")[-1] == (3, 1.0)
    assert EVENTS in metrics.notes()[0]


# --- reports ---


def report_line(step: int, value: str, time_s: float, tag: str = "acc") -> str:
    report = {"checkpoint_path": "", "global_step": str(step), "timestamp": time_s, "trial": "2", tag: value}
    return json.dumps(report, sort_keys=True) + "\n"


def test_a_file_that_is_written_anew_with_its_last_hundred_entries_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "output.metrics"
    metrics = TrialMetrics(DiskDirectory(tmp_path / "job"), [file])
    lines = [report_line(step, str(step / 2), 1000.0 + step) for step in range(250)]
    for count in range(0, 251, 50):
        file.write_text("".join(lines[max(count - 100, 0) : count]))
        assert metrics.poll() == bool(count)
        file.write_text("".join(lines[max(count - 100, 0) : count])[:-30])  # caught while it is written
        assert not metrics.poll()
    assert points(metrics, "acc") == [(step, step / 2) for step in range(250)]


def test_lines_that_are_no_reports_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "output.metrics"
    bad = [
        "[]",
        "nonsense",
        "{}",
        '{"global_step": "x", "acc": "1"}',
        report_line(10**400, "1", 1.0).strip(),
        "[" * 9999,
    ]
    file.write_text("\n".join(bad) + "\n" + report_line(1, "nan", 1.0) + report_line(2, "inf", 2.0))
    metrics = TrialMetrics(DiskDirectory(tmp_path / "job"), [file, tmp_path / "of a replica that reports nothing"])
    metrics.poll()
    assert [step for step, _value in points(metrics, "acc")] == [1, 2]
    assert points(metrics, "acc")[1] == (2, math.inf)


def test_a_report_counts_before_an_event_file_of_the_same_tag(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_bytes(events(("acc", 99, 0.5)))
    (tmp_path / "output.metrics").write_text(report_line(1, "0.25", 1.0))
    metrics = TrialMetrics(DiskDirectory(tmp_path), [tmp_path / "output.metrics"])
    metrics.poll()
    assert points(metrics, "acc") == [(1, 0.25)]
    assert metrics.tags() == ["acc"]
