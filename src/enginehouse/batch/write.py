"""What one split gives: gathered in files beside the worker, put into the bucket in one step.

The shard with the predictions is written last and says which run made it, so that it is the mark of a finished split:
a kill before that costs the split's work, after that nothing, and either way each instance is there once.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginehouse.batch.objects import Object, Objects

if TYPE_CHECKING:  # the coordinator needs no frameworks
    from enginehouse.batch.run import Result

_RUN, _PREDICTIONS, _ERRORS = "enginehouse-run", "predictions", "errors"


@dataclass(frozen=True)
class Counts:
    """Instances with and without a prediction."""

    predictions: int = 0
    errors: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.predictions + other.predictions, self.errors + other.errors)

    def to_metadata(self, run: str) -> dict[str, str]:
        """For an object that `run` writes."""
        return {_RUN: run, _PREDICTIONS: str(self.predictions), _ERRORS: str(self.errors)}

    @classmethod
    def of(cls, written: Object | None, run: str) -> Counts | None:
        """What an object says; None if another run, or none, wrote it."""
        if written is None or written.metadata.get(_RUN) != run:
            return None
        return cls(int(written.metadata[_PREDICTIONS]), int(written.metadata[_ERRORS]))


@dataclass(frozen=True)
class Output:
    """Where a run writes.

    Attributes:
        bucket, prefix: of the output path; the prefix is empty or ends with "/".
        run: tells this job's objects from those of others in the same place.
    """

    bucket: str
    prefix: str
    run: str

    @classmethod
    def parse(cls, path: str, run: str) -> Output:
        """From `gs://BUCKET/FOLDER`."""
        bucket, _, name = path[len("gs://") :].partition("/")
        name = name.strip("/")
        return cls(bucket, name + "/" if name else "", run)

    @property
    def scratch(self) -> str:
        """Prefix of the objects that are removed at the end."""
        job_id = self.run.partition("@")[0].rpartition("/")[2]
        return f"{self.prefix}_enginehouse_{job_id}/"

    @property
    def manifest(self) -> str:
        """Names what there is to do."""
        return self.scratch + "manifest.json"

    def results(self, shard: int, n_shards: int) -> str:
        """`prediction.results-00000-of-00001`."""
        return f"{self.prefix}prediction.results-{shard:05}-of-{n_shards:05}"

    def errors(self, shard: int) -> str:
        """The errors of one split, until they are joined."""
        return f"{self.scratch}errors-{shard:05}"

    @property
    def errors_stats(self) -> str:
        """All errors; written when everything else is."""
        return self.prefix + "prediction.errors_stats-00000-of-00001"


class Shard:
    """The output of one split. A context manager: leaving it throws away what was not committed."""

    def __init__(self, output: Output, shard: int, n_shards: int) -> None:
        self._output = output
        self._shard = shard
        self._n_shards = n_shards
        self._results = tempfile.TemporaryFile(dir=".")  # noqa: SIM115 (closed by __exit__)
        self._errors = tempfile.TemporaryFile(dir=".")  # noqa: SIM115
        self.counts = Counts()

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._results.close()
        self._errors.close()

    def add(self, result: Result) -> None:
        """What came of the next block."""
        for lines in result.lines:
            self._results.write(lines)
        for error in result.errors:
            self._errors.write(json.dumps(error).encode() + b"\n")
        self.counts += Counts(result.n_predictions, len(result.errors))

    def commit(self, objects: Objects) -> None:
        """Make it visible, and the split done."""
        metadata = self.counts.to_metadata(self._output.run)
        if self.counts.errors:
            self._upload(objects, self._output.errors(self._shard), self._errors, metadata)
        self._upload(objects, self._output.results(self._shard, self._n_shards), self._results, metadata)

    def _upload(self, objects: Objects, name: str, file: Any, metadata: dict[str, str]) -> None:
        objects.upload(self._output.bucket, name, file, file.tell(), metadata)
