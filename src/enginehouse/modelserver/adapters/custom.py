"""Custom prediction routines: the user's own class, from the version's packages.

    class Predictor:
        @classmethod
        def from_path(cls, model_dir): ...            # a predictor; model_dir holds the version's files
        def predict(self, instances, **kwargs): ...   # a list; kwargs are the other fields of the request

Instances arrive as JSON has them. Requests are never merged: what a routine makes of a list is its own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.adapters.tables import TableTarget, prepare_table
from enginehouse.modelserver.codecs import jsonable
from enginehouse.modelserver.errors import USER_CODE, ModelLoadError, PredictionError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Explainable, Target

_USER_CODE = "There was a problem processing the user code"


class CustomAdapter(Adapter, Explainable):
    """An instance of the user's class."""

    def __init__(self, predictor: Any, class_name: str) -> None:
        self._predictor = predictor
        self._class_name = class_name

    @classmethod
    def load(cls, directory: Path, class_name: str = "") -> CustomAdapter:
        module_name, _, name = class_name.rpartition(".")
        try:
            predictor_class = getattr(import_module(module_name), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ModelLoadError(
                f"{class_name} cannot be found. Please make sure (1) prediction_class is the fully qualified class "
                f"name, and (2) {class_name} uses the correct package name as provided by the package_uris: "
                f"{describe(error)}"
            ) from error
        for method in ("from_path", "predict"):
            if not callable(getattr(predictor_class, method, None)):
                raise ModelLoadError(f"{_USER_CODE}: {class_name} has no method {method}.")
        try:
            return cls(predictor_class.from_path(str(directory)), class_name)
        except Exception as error:
            raise ModelLoadError(
                f"{_USER_CODE}: {class_name}.from_path raised {type(error).__name__}: {describe(error)}"
            ) from error

    def signatures(self) -> dict[str, Any]:
        return {
            "predict": {"inputs": {"instances": {"shape": [None]}}, "outputs": {"predictions": {"shape": [None]}}}
        }

    def prepare(self, request: Mapping[str, Any]) -> Call:
        kwargs = {key: value for key, value in request.items() if key != "instances"}
        return Call("predict", (request["instances"], kwargs), len(request["instances"]), None)

    def run(self, call: Call) -> list[Any]:
        instances, kwargs = call.arrays
        try:
            predictions = jsonable(self._predictor.predict(instances, **kwargs))
        except Exception as error:
            raise PredictionError(
                f"{_USER_CODE}: {self._class_name}.predict raised {type(error).__name__}: {describe(error)}",
                USER_CODE,
            ) from error
        if not isinstance(predictions, list):
            raise PredictionError(
                f"{_USER_CODE}: {self._class_name}.predict must return a list, not {type(predictions).__name__}.",
                USER_CODE,
            )
        return predictions

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        if gradients:
            raise PredictionError(f"{_USER_CODE}: {self._class_name} gives no gradients; use sampled Shapley.")
        return TableTarget(
            metadata,
            self._prepare_table,
            lambda table: self.run(Call("predict", (table.tolist(), {}), len(table), None)),
            "predictions",
        )

    def _prepare_table(self, request: Mapping[str, Any]) -> Call:
        """The instances as a table, which is what can be explained of them."""
        call = prepare_table(request, None)
        return Call("", call.arrays, call.n_rows, call.merge_key)

    def self_test(self) -> str:
        return "inconclusive: only the routine knows what it takes"
