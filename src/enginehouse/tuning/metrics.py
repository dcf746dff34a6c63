"""All that a trial has reported, and which of it is the metric that its job asks for.

In come the places where the trial writes (see `tuning.metrics_sources`); out come the points of the metric and notes
for the job's owner. Called by whoever runs trials: `poll` now and then and once after the trial's end.

A metric is found by its tag, by the first of these rules that finds any:

1. reported by exactly this tag (cloudml-hypertune, `enginehouse.sdk.report`);
2. written to an event file by exactly this tag, as the original service matched;
3. Keras' name for it: `epoch_TAG`, and for `val_TAG` the `epoch_TAG` of a directory of evaluations;
4. a tag that ends with `/TAG`, else one that ends with `_TAG`, if there is only one such.

Where directories of evaluations (`eval`, `eval_NAME`, `validation`, `val`, `test`) hold the tag, those of training do
not count. Rules 3 and 4 and this choice leave a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.tuning.metrics_sources import EventFiles, MetricDirectory, Point, ReportFile, Series

_REPORTED = "the reports"
_EVALUATION = re.compile(r"(eval|evaluation|val|valid|validation|test)([_.-].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Metric:
    """The metric of a trial as it was found."""

    tag: str
    """The tag that was written, which rule 3 or 4 may have found."""
    points: Sequence[Point]
    """By step; of several at one step only the one that was written last. Never empty."""
    notes: Sequence[str]
    """What the job's owner should know of the choice."""

    def last(self) -> Point:
        """The value at the highest step: what counts, as in the original service."""
        return self.points[-1]

    def best(self, *, maximize: bool) -> Point:
        """The best value, the first of equals; the last one where all are NaN."""
        numbers = [point for point in self.points if not math.isnan(point.value)]
        if not numbers:
            return self.last()
        return (max if maximize else min)(numbers, key=lambda point: point.value)


@dataclass(frozen=True)
class _Written:
    """One tag in one place."""

    place: str
    tag: str
    series: Series


class TrialMetrics:
    """Follows what a trial writes. Keeps no state on disk: another instance reads the same from the start.

    Not for two threads at once.

    Args:
        directory: the trial's job-dir; event files anywhere below it count.
        reports: the files that `CLOUD_ML_HP_METRIC_FILE` names, one for each replica.
    """

    def __init__(self, directory: MetricDirectory, reports: Iterable[Path] = ()) -> None:
        self._events = EventFiles(directory)
        self._reports = [ReportFile(path) for path in reports]

    def follow(self, reports: Iterable[Path]) -> None:
        """Read these files of reports, too: a replica that is begun anew writes to another one."""
        known = {report.path for report in self._reports}
        self._reports += [ReportFile(path) for path in reports if path not in known]

    def poll(self) -> bool:
        """Read what is new; whether anything was."""
        news = self._events.poll()
        for report in self._reports:
            news |= report.poll()
        return news

    def tags(self) -> list[str]:
        """All tags that were written so far."""
        return sorted({written.tag for written in self._all()})

    def find(self, tag: str) -> Metric | None:
        """The metric `tag` by the rules above; None while there is nothing, or nothing unambiguous."""
        everything = self._all()
        for rule in (_as_reported, _exact, _as_keras, _after("/"), _after("_")):
            if chosen := rule(tag, everything):
                return _metric(tag, chosen)
        return None

    def why_missing(self, tag: str) -> str:
        """The warning for a trial without the metric, with the tags that could have been meant."""
        tags = self.tags()
        if not tags:
            return (
                f"The metric {tag!r} was never reported, nor any other: write a TensorFlow summary below --job-dir, "
                "or report it with cloudml-hypertune or enginehouse.sdk.report."
            )
        shown = ", ".join(tags[:_MAX_SHOWN_TAGS]) + (", …" if len(tags) > _MAX_SHOWN_TAGS else "")
        alike = [seen for seen in tags if re.search(rf"[/_]{re.escape(tag)}$", seen)]
        why = f" More than one tag ends so: {', '.join(alike)}." if len(alike) > 1 else ""
        return (
            f"The metric {tag!r} was never reported.{why} Tags that were seen: {shown}. Set hyperparameterMetricTag "
            "to one of them."
        )

    def notes(self) -> list[str]:
        """What is wrong with the files, if anything."""
        return [
            f"The event file {path} is damaged; what could be read of it counts." for path in self._events.damaged()
        ]

    def _all(self) -> list[_Written]:
        events = [_Written(place, tag, series) for place, tag, series in self._events.series()]
        reports = [_Written(_REPORTED, tag, series) for file in self._reports for tag, series in file.series()]
        return reports + events


_MAX_SHOWN_TAGS = 30

_Rule = Callable[[str, list[_Written]], list[_Written]]


def _as_reported(tag: str, everything: list[_Written]) -> list[_Written]:
    return [written for written in everything if written.tag == tag and written.place == _REPORTED]


def _exact(tag: str, everything: list[_Written]) -> list[_Written]:
    return [written for written in everything if written.tag == tag]


def _as_keras(tag: str, everything: list[_Written]) -> list[_Written]:
    if chosen := _exact(f"epoch_{tag}", everything):
        return chosen
    if not tag.startswith("val_"):
        return []
    return [
        written
        for written in _exact("epoch_" + tag.removeprefix("val_"), everything)
        if _is_evaluation(written.place)
    ]


def _after(boundary: str) -> _Rule:
    def rule(tag: str, everything: list[_Written]) -> list[_Written]:
        chosen = [written for written in everything if written.tag.endswith(boundary + tag)]
        return chosen if len({written.tag for written in chosen}) == 1 else []

    return rule


def _is_evaluation(place: str) -> bool:
    return any(_EVALUATION.fullmatch(part) for part in place.split("/"))


def _metric(tag: str, chosen: list[_Written]) -> Metric:
    notes = []
    if chosen[0].tag != tag:
        notes.append(f"There is no metric {tag!r}; {chosen[0].tag!r} is taken for it.")
    evaluations = [written for written in chosen if _is_evaluation(written.place)]
    left_out = {written.place for written in chosen} - {written.place for written in evaluations}
    if evaluations and left_out:
        told = ", ".join(sorted(_shown(place) for place in left_out))
        taken = ", ".join(sorted({_shown(written.place) for written in evaluations}))
        notes.append(f"{chosen[0].tag!r} of {taken} counts; the one of {told} is of training.")
        chosen = evaluations
    places = sorted({_shown(written.place) for written in chosen})
    if len(places) > 1:
        notes.append(f"{chosen[0].tag!r} is written in several places ({', '.join(places)}): all of them count.")
    newest = sorted((point for written in chosen for point in written.series), key=lambda p: (p.step, p.time_s))
    by_step = {point.step: point for point in newest}
    return Metric(chosen[0].tag, list(by_step.values()), notes)


def _shown(place: str) -> str:
    return place or "the job directory itself"
