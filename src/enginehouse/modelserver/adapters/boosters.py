"""Boosted trees over a table of numbers: the adapter of XGBoost, without XGBoost.

`adapters.xgboost` brings the booster of this process, `adapters.outside` one in an old runtime.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.tables import SIGNATURE, TableAdapter, prepare_table
from enginehouse.modelserver.codecs import Array, rows_of
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe


class BoosterAdapter(TableAdapter):
    """A Booster or an XGBModel; predictions are the values of its `predict`."""

    @abstractmethod
    def predict(self, table: Array) -> Array:
        """The model's answer."""

    def signatures(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {"dtype": "float32", "shape": [None, self._n_features]}
        if self._feature_names:
            inputs["features"] = self._feature_names
        return {SIGNATURE: {"inputs": {"instances": inputs}, "outputs": {"predictions": {"shape": [None]}}}}

    def prepare(self, request: Mapping[str, Any]) -> Call:
        call = prepare_table(request, self._feature_names)
        array = call.arrays[0]
        if array.dtype.kind not in "fiub":
            raise PredictionError(
                "Could not initialize DMatrix from inputs: all values must be numbers, null or true and false."
            )
        if array.ndim != 2 or array.shape[1] != self._n_features:
            raise PredictionError(
                f"Could not initialize DMatrix from inputs: each instance must be a list of {self._n_features} "
                f"numbers; the shape of the instances is {array.shape}."
            )
        return call

    def run(self, call: Call) -> list[Any]:
        try:
            return rows_of(self.predict(call.arrays[0]))
        except Exception as error:
            raise PredictionError(f"Exception during xgboost prediction: {describe(error)}") from error

    def self_test(self) -> str:
        try:
            self.predict(np.zeros((1, self._n_features or 0)))
        except Exception as error:
            raise ModelLoadError(
                f"Unexpected error when calling the model with a test instance ({self._library}): "
                f"{type(error).__name__}: {describe(error)}"
            ) from error
        return "passed"
