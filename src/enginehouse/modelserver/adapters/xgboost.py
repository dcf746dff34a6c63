"""XGBoost: `model.bst`, `model.json` or `model.ubj` with a Booster; `model.joblib` or `model.pkl` with a Booster or a
scikit-learn style estimator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from enginehouse.modelserver.adapters.boosters import BoosterAdapter
from enginehouse.modelserver.adapters.tables import load_pickled, type_name
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError, describe

_BOOSTER_FILES = ("model.bst", "model.json", "model.ubj")


class XgboostAdapter(BoosterAdapter):
    """A model in this process.

    Boosters answer by `inplace_predict`, a third quicker than through a DMatrix. One thread per call: a served batch
    is too small for more.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._is_booster = isinstance(model, xgboost.Booster)
        self._booster = booster = model if self._is_booster else model.get_booster()
        names = booster.feature_names
        explained, labels = self._what_to_explain()
        super().__init__(
            f"xgboost {xgboost.__version__}",
            booster.num_features(),
            list(names) if names else None,
            explained,
            labels,
        )
        if self._is_booster:
            model.set_param({"nthread": 1})
        else:
            model.set_params(n_jobs=1)

    @classmethod
    def load(cls, directory: Path) -> XgboostAdapter:
        path = next((p for name in _BOOSTER_FILES if (p := directory / name).is_file()), None)
        try:
            if path is not None:
                booster = xgboost.Booster()
                # From memory the format is told by the content: `.bst` was saved as several in the course of time.
                booster.load_model(bytearray(path.read_bytes()))
                return cls(booster)
            model = load_pickled(directory)
            if not isinstance(model, (xgboost.Booster, xgboost.XGBModel)):
                raise ModelLoadError(
                    f"Invalid model type detected: {type_name(model)}. "
                    "Please make sure the model file is an exported xgboost model."
                )
            return cls(model)
        except ModelLoadError:
            raise
        except Exception as error:
            raise ModelLoadError(
                f"Unexpected error when loading the model: Could not load {path.name if path else 'the model'}: "
                f"{describe(error)}"
            ) from error

    def _what_to_explain(self) -> tuple[str, list[str]]:
        if not self._is_booster and hasattr(self._model, "predict_proba"):
            return "predict_proba", [str(label) for label in self._model.classes_]
        objective = json.loads(self._booster.save_config())["learner"]["objective"]["name"]
        # Its prediction would be the number of a class.
        return ("margin" if objective == "multi:softmax" else "predict"), []

    def score(self, table: Array) -> Any:
        if self._explained == "margin":
            return self._booster.inplace_predict(table, predict_type="margin")
        return self._model.predict_proba(table) if self._explained == "predict_proba" else self.predict(table)

    def predict(self, table: Array) -> Array:
        if self._is_booster:
            return np.asarray(self._model.inplace_predict(table))
        return np.asarray(self._model.predict(table))
