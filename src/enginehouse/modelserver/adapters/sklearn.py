"""scikit-learn: `model.joblib` or `model.pkl` with anything that has a `predict`."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn

from enginehouse.modelserver.adapters.estimators import EstimatorAdapter
from enginehouse.modelserver.adapters.tables import load_pickled, type_name
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError


class SklearnAdapter(EstimatorAdapter):
    """An estimator in this process."""

    def __init__(self, model: Any) -> None:
        self._model = model
        n_features = getattr(model, "n_features_in_", None)
        names = getattr(model, "feature_names_in_", None)
        explained = next(name for name in ("predict_proba", "decision_function", "predict") if hasattr(model, name))
        classes = getattr(model, "classes_", ()) if explained == "predict_proba" else ()
        super().__init__(
            f"scikit-learn {sklearn.__version__}",
            None if n_features is None else int(n_features),
            None if names is None else [str(name) for name in names],
            explained,
            [str(label) for label in classes],
        )
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

    @property
    def has_frames(self) -> bool:
        return importlib.util.find_spec("pandas") is not None

    def score(self, table: Array) -> Any:
        return getattr(self._model, self._explained)(self._as_fitted(table, as_frame=self._needs_frame))

    def _as_fitted(self, table: Array, *, as_frame: bool) -> Any:
        if not as_frame:
            return table
        import pandas  # type: ignore[import-untyped]

        return pandas.DataFrame(table, columns=self._feature_names).infer_objects()

    def predict(self, table: Array, *, as_frame: bool) -> Array:
        output = self._model.predict(self._as_fitted(table, as_frame=as_frame))
        if hasattr(output, "toarray"):  # sparse, from multi-label classifiers
            output = output.toarray()
        return np.asarray(output)
