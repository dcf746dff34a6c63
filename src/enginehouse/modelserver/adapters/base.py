"""The contract between the model server and a framework.

An adapter turns the instances of one request into a `Call` (`prepare`), runs a call (`run`), and says of itself what
it takes and gives (`signatures`). The batcher may `merge` calls of several requests into one.

Rules:
* One thread uses an adapter; it needs no locks. The process is its own: it may set global state of the framework.
* `prepare` has no side effects and judges one request alone; what it lets through may still fail in `run`.
* Two calls may be merged when their `merge_key` is equal and not None. Then `run(merge([a, b]))` must give the rows
  of `run(a)` followed by the rows of `run(b)` (up to the framework's rounding, which may depend on the batch size).
* Everything raised as PredictionError reaches the caller as it is; other exceptions from `run` are a bug of the
  adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError


@dataclass(frozen=True, slots=True)
class Call:
    """The decoded instances of one request, or of several.

    Args:
        signature: which of the model's signatures is meant.
        arrays: the inputs in the signature's order, each (n_rows, …).
        n_rows: number of instances.
        merge_key: equal for calls that may be merged; None for a call that must go alone.
    """

    signature: str
    arrays: tuple[Any, ...]
    n_rows: int
    merge_key: Hashable | None


class Adapter(ABC):
    """A loaded model of one framework.

    Attributes:
        takes_arrays: values of instances may be arrays, where `prepare` would take lists of numbers.
    """

    takes_arrays: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Adapter:
        """Load the model in `directory`.

        Raises:
            ModelLoadError: with the framework's own words.
        """

    @abstractmethod
    def signatures(self) -> dict[str, Any]:
        """What the model tells of itself, `{name: {"inputs": {alias: {"dtype": …, "shape": …}}, "outputs": …}}`."""

    @abstractmethod
    def prepare(self, request: Mapping[str, Any]) -> Call:
        """The call that a request (`instances` in it is a list, not empty) asks for.

        Raises:
            PredictionError: naming the instance and the input that is wrong, and what was expected.
        """

    def prepare_rows(self, table: Array, signature_name: str, *, named: bool) -> Call | None:
        """The call for a table of numbers, a row per instance and a column per feature; asked by batch predictions.

        Args:
            table: (n_rows, n_columns) float64, NaN for what is missing.
            signature_name: "" for the default one.
            named: the columns are those of `input_names`; else it is just that many numbers.

        Returns:
            None where the model takes no such table, so that its instances go through `prepare`.
        """
        return None

    def takes_text(self, signature_name: str) -> bool:
        """Whether an instance is one string (or bytes): a line of text as it is, or a serialized record."""
        return False

    def input_names(self, signature_name: str) -> list[str] | None:
        """What the columns of a table are called, in the model's order; None where they have no names."""
        return None

    @abstractmethod
    def run(self, call: Call) -> list[Any]:
        """The predictions, one JSON-serialisable value per row.

        Raises:
            PredictionError: the model failed, in the framework's words.
        """

    @abstractmethod
    def self_test(self) -> str:
        """Call the model once with an instance made up from its signature; this also warms it up.

        Returns:
            "passed", or "inconclusive: …" where the made-up instance was refused as data.

        Raises:
            ModelLoadError: the failure shows that the model itself cannot work here.
        """

    def merge(self, calls: Sequence[Call]) -> Call:
        """One call with the rows of all `calls` (two or more, of one merge_key), in that order."""
        first = calls[0]
        columns = zip(*(call.arrays for call in calls), strict=True)
        arrays = tuple(np.concatenate(column) for column in columns)
        return Call(first.signature, arrays, sum(call.n_rows for call in calls), first.merge_key)


def named_columns(instances: list[Any], names: Sequence[str]) -> list[list[Any]]:
    """Instances given as objects, as one list of values per name.

    Raises:
        PredictionError: an instance is no object, lacks a name or has one too many.
    """
    expected = set(names)
    for index, instance in enumerate(instances):
        if type(instance) is not dict:
            raise PredictionError(
                f"Invalid instance: instance {index} must be an object with the keys {list(names)}, "
                f"got {type(instance).__name__}."
            )
        if instance.keys() != expected:
            for name in instance:
                if name not in expected:
                    raise PredictionError(
                        f"Input mismatch: Unexpected tensor name: {name} (instance {index}). Expected: {list(names)}."
                    )
            missing = next(name for name in names if name not in instance)
            raise PredictionError(
                f"Input {missing} was missing in at least one input instance. (First in instance {index}.)"
            )
    return [[instance[name] for instance in instances] for name in names]


def merge_key(signature: str, arrays: Sequence[Array]) -> Hashable:
    """Signature, dtypes and shapes without the rows: arrays of one key may be concatenated without any conversion."""
    if len(arrays) == 1:
        return signature, arrays[0].dtype, arrays[0].shape[1:]
    return signature, tuple((array.dtype, array.shape[1:]) for array in arrays)
