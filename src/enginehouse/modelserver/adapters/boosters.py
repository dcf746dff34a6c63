"""Boosted trees over a table of numbers: the adapter of XGBoost, without XGBoost.

`adapters.xgboost` brings the booster of this process, `adapters.outside` one in an old runtime.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.adapters.tables import SIGNATURE, prepare_table
from enginehouse.modelserver.codecs import Array, rows_of
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe


class BoosterAdapter(Adapter):
    """A Booster or an XGBModel; predictions are the values of its `predict`.

    Args:
        library: name and version, for messages.
        n_features: columns of the table.
        feature_names: what they are called; None where they have no names.
    """

    def __init__(self, library: str, n_features: int, feature_names: list[str] | None) -> None:
        self._library = library
        self._n_features = n_features
        self._feature_names = feature_names

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

    def prepare_rows(self, table: Array, signature_name: str, *, named: bool) -> Call | None:
        if signature_name or table.shape[1] != self._n_features:
            return None
        return Call(SIGNATURE, (table,), len(table), None)

    def input_names(self, signature_name: str) -> list[str] | None:
        return self._feature_names

    def run(self, call: Call) -> list[Any]:
        try:
            return rows_of(self.predict(call.arrays[0]))
        except Exception as error:
            raise PredictionError(f"Exception during xgboost prediction: {describe(error)}") from error

    def self_test(self) -> str:
        try:
            self.predict(np.zeros((1, self._n_features)))
        except Exception as error:
            raise ModelLoadError(
                f"Unexpected error when calling the model with a test instance ({self._library}): "
                f"{type(error).__name__}: {describe(error)}"
            ) from error
        return "passed"
