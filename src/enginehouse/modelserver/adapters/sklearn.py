"""scikit-learn: `model.joblib` or `model.pkl` with anything that has a `predict`."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import NotFittedError

from enginehouse.modelserver.adapters.base import Adapter, Call
from enginehouse.modelserver.adapters.tables import SIGNATURE, TableTarget, load_pickled, prepare_table, type_name
from enginehouse.modelserver.codecs import Array, rows_of
from enginehouse.modelserver.errors import ModelLoadError, PredictionError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Explainable, Target

_DATA_ERRORS = (ValueError, TypeError, IndexError, KeyError)
"""What a sound model raises when it does not like the data; anything else from the test call is the model's fault."""


class SklearnAdapter(Adapter, Explainable):
    """An estimator or a pipeline; predictions are the values of its `predict`.

    A model that was fitted on a data frame is given arrays as long as it takes them, since a frame costs more than
    most predictions; the test call finds out whether it needs the frame (columns picked by name).
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._feature_names = _feature_names(model)
        self._needs_frame = False
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    @classmethod
    def load(cls, directory: Path) -> SklearnAdapter:
        model = load_pickled(directory)
        if not callable(getattr(model, "predict", None)):
            raise ModelLoadError(
                f"Invalid model type detected: {type_name(model)}. "
                "Please make sure the model file is an exported sklearn model or pipeline."
            )
        return cls(model)

    def signatures(self) -> dict[str, Any]:
        n_features = getattr(self._model, "n_features_in_", None)
        inputs: dict[str, Any] = {"shape": [None] if n_features is None else [None, int(n_features)]}
        if self._feature_names:
            inputs["features"] = self._feature_names
        return {SIGNATURE: {"inputs": {"instances": inputs}, "outputs": {"predictions": {"shape": [None]}}}}

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return prepare_table(request, self._feature_names)

    def prepare_rows(self, table: Array, signature_name: str, *, named: bool) -> Call | None:
        if signature_name or table.shape[1] != getattr(self._model, "n_features_in_", None):
            return None
        return Call(SIGNATURE, (table,), len(table), None)

    def input_names(self, signature_name: str) -> list[str] | None:
        return self._feature_names

    def run(self, call: Call) -> list[Any]:
        try:
            return rows_of(self._predict(call.arrays[0]))
        except Exception as error:
            raise PredictionError(f"Exception during sklearn prediction: {describe(error)}") from error

    def signature_name(self, asked: Any) -> str:
        return SIGNATURE

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        if gradients:
            raise PredictionError("Explanation failed: scikit-learn gives no gradients; use sampled Shapley.")
        method = next(
            (name for name in ("predict_proba", "decision_function") if hasattr(self._model, name)), "predict"
        )
        classes = getattr(self._model, "classes_", ())
        labels = [str(label) for label in classes] if method == "predict_proba" else ()
        return TableTarget(
            metadata,
            self.prepare,
            lambda table: getattr(self._model, method)(self._as_fitted(table)),
            {"predict_proba": "probabilities", "decision_function": "scores", "predict": "predictions"}[method],
            label_names=labels,
            feature_names=self._feature_names or (),
        )

    def _as_fitted(self, array: Array) -> Any:
        if not self._needs_frame:
            return array
        import pandas  # type: ignore[import-untyped]

        return pandas.DataFrame(array, columns=self._feature_names).infer_objects()

    def _predict(self, array: Array) -> Array:
        output = self._model.predict(self._as_fitted(array))
        if hasattr(output, "toarray"):  # sparse, from multi-label classifiers
            output = output.toarray()
        return np.asarray(output)

    def self_test(self) -> str:
        n_features = getattr(self._model, "n_features_in_", None)
        # Without a number of features the first step reads no table; most such steps read lists of text.
        instance = np.array([""], dtype=object) if n_features is None else np.zeros((1, int(n_features)))
        failure = self._try(instance)
        if failure is not None and self._feature_names and importlib.util.find_spec("pandas"):
            self._needs_frame = True
            failure_as_frame = self._try(instance)
            if failure_as_frame is not None and str(failure_as_frame) == str(failure):
                self._needs_frame = False
            failure = failure_as_frame
        if failure is None:
            return "passed"
        words = f"{type(failure).__name__}: {describe(failure)}"
        if isinstance(failure, NotFittedError) or not isinstance(failure, _DATA_ERRORS):
            raise ModelLoadError(
                f"Unexpected error when calling the model with a test instance (scikit-learn {sklearn.__version__}): "
                f"{words}"
            ) from failure
        return f"inconclusive: the model refused a made-up instance of zeros or empty text with {words}"

    def _try(self, instance: Array) -> Exception | None:
        try:
            self._predict(instance)
        except Exception as error:
            return error
        return None


def _feature_names(model: Any) -> list[str] | None:
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]
