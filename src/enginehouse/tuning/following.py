"""Follows what one trial of a tuning job writes, from its job and its directories to measurements for its study.

In: the trial's job record. Out: measurements, JSON-ready, the value that counts, warnings. Keeps no state of its own:
another instance reads the same from the start. Called by `tuning.trials`, by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enginehouse.core.files import read_json
from enginehouse.core.names import ObjectUri
from enginehouse.core.units import format_duration
from enginehouse.jobs.plan import Plan
from enginehouse.jobs.run import launch_directories
from enginehouse.metadata.records import JobRecord
from enginehouse.replica.spec import METRIC_FILE, PARAMETERS_FILE
from enginehouse.schemas.optimizer import Measurement, MeasurementMetric
from enginehouse.schemas.wire import Int64, to_builtins
from enginehouse.storage.base import ObjectStore
from enginehouse.tuning.metrics import Metric, TrialMetrics
from enginehouse.tuning.metrics_sources import BucketDirectory, DiskDirectory, Point

MAX_MEASUREMENTS = 500
"""Kept of one trial in its study; of longer curves every so-and-so-many-th point, and always the last."""


class Follower:
    """One trial.

    Args:
        job: the trial's own, not the tuning job.
        tag: of the metric.
    """

    def __init__(self, job: JobRecord, tag: str, storage: ObjectStore, jobs_dir: Path) -> None:
        job_dir = job.request["trainingInput"].get("jobDir", "")
        directory = (
            BucketDirectory(storage, ObjectUri.parse(job_dir)) if job_dir else DiskDirectory(jobs_dir / "nowhere")
        )
        self._metrics = TrialMetrics(directory)
        self._jobs_dir = jobs_dir
        self._tag = tag
        self.looked_s = float("-inf")
        """When `poll` was called last, by the caller's clock."""

    def poll(self, job: JobRecord) -> Metric | None:
        """Read what is new; the metric as it is now."""
        for replica in Plan.from_json(job.plan).replicas:
            directories = launch_directories(self._jobs_dir, job, replica.task_name)
            self._metrics.follow(directory / METRIC_FILE for directory in directories)
        self._metrics.poll()
        return self._metrics.find(self._tag)

    def why_missing(self) -> str:
        """The warning where `poll` found no metric."""
        return self._metrics.why_missing(self._tag)

    def notes(self, metric: Metric | None) -> list[str]:
        """What the job's owner should know of what was read."""
        return [*(metric.notes if metric else ()), *self._metrics.notes()]

    def unread_parameters(self, job: JobRecord) -> dict[str, list[str]]:
        """Tuned flags that no parser of the trainer knew → options that it has and that may have been meant."""
        master = Plan.from_json(job.plan).replicas[0].task_name
        for directory in reversed(launch_directories(self._jobs_dir, job, master)):
            found: dict[str, list[str]] | None = read_json(directory / PARAMETERS_FILE)
            if found is not None:
                return found
        return {}

    def measurements(self, metric: Metric, since_ns: int) -> list[dict[str, Any]]:
        """The metric as measurements.

        Args:
            since_ns: when the trial began.
        """
        return [self.measurement(point, since_ns) for point in _thinned(metric.points)]

    def measurement(self, point: Point, since_ns: int) -> dict[str, Any]:
        """One point as a measurement."""
        return to_builtins(
            Measurement(
                step_count=Int64(point.step),
                elapsed_time=format_duration(round(max(0.0, point.time_s - since_ns / 1e9), 3)),
                metrics=[MeasurementMetric(metric=self._tag, value=point.value)],
            )
        )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    every = -(-len(points) // MAX_MEASUREMENTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]
