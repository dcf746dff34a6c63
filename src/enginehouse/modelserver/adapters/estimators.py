"""A table in, one prediction per row out: the adapter of scikit-learn, without scikit-learn.

`adapters.sklearn` brings the estimator of this process, `adapters.outside` one in an old runtime.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.tables import SIGNATURE, TableAdapter, prepare_table
from enginehouse.modelserver.codecs import Array, jsonable, rows_of, shape_text
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe

_DATA_ERRORS = (ValueError, TypeError, IndexError, KeyError)
"""What a sound model raises when it does not like the data; anything else from the test call is the model's fault."""


class EstimatorAdapter(TableAdapter):
    """An estimator or a pipeline; predictions are the values of its `predict`.

    A model that was fitted on a data frame is given arrays as long as it takes them, since a frame costs more than
    most predictions; the test call finds out whether it needs the frame (columns picked by name).
    """

    _needs_frame = False

    @abstractmethod
    def predict(self, table: Array, *, as_frame: bool) -> Any:
        """The model's answer, an array or a list; with `as_frame`, to a data frame with the feature names."""

    @property
    @abstractmethod
    def has_frames(self) -> bool:
        """Whether a data frame can be made at all."""

    def signatures(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"shape": [None] if self._n_features is None else [None, self._n_features]}
        if self._feature_names:
            inputs["features"] = self._feature_names
        return {SIGNATURE: {"inputs": {"instances": inputs}, "outputs": {"predictions": {"shape": [None]}}}}

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return prepare_table(request, self._feature_names)

    def run(self, call: Call) -> list[Any]:
        try:
            output = self.predict(call.arrays[0], as_frame=self._needs_frame)
            return list(jsonable(output)) if isinstance(output, list) else rows_of(np.asarray(output))
        except Exception as error:
            words = f"Exception during sklearn prediction: {describe(error)}"
            shape = call.arrays[0].shape
            if self._n_features is not None and shape[1:] != (self._n_features,):
                came = f"{shape[1]} values" if len(shape) == 2 else f"the shape {shape_text(shape[1:])}"
                words += f" (Each instance must be a list of {self._n_features} values; instance 0 has {came}.)"
            raise PredictionError(words) from error

    def self_test(self) -> str:
        # Without a number of features the first step reads no table; most such steps read lists of text.
        instance = np.array([""], dtype=object) if self._n_features is None else np.zeros((1, self._n_features))
        failure = self._try(instance)
        if failure is not None and self._feature_names and self.has_frames:
            self._needs_frame = True
            failure_as_frame = self._try(instance)
            if failure_as_frame is not None and str(failure_as_frame) == str(failure):
                self._needs_frame = False
            failure = failure_as_frame
        if failure is None:
            return "passed"
        words = f"{type(failure).__name__}: {describe(failure)}"
        if type(failure).__name__ == "NotFittedError" or not isinstance(failure, _DATA_ERRORS):
            raise ModelLoadError(
                f"Unexpected error when calling the model with a test instance ({self._library}): {words}"
            ) from failure
        return f"inconclusive: the model refused a made-up instance of zeros or empty text with {words}"

    def _try(self, instance: Array) -> Exception | None:
        try:
            self.predict(instance, as_frame=self._needs_frame)
        except Exception as error:
            return error
        return None
