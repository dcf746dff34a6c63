"""The models as a careful programmer calls them, the same for every peer: an array in, an array out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
Predict = Callable[[Any], Any]


def load(framework: str, directory: str) -> Predict:
    """The quickest call of a model: `predict` of scikit-learn, a session's callable, XGBoost without a DMatrix."""
    if framework == "SCIKIT_LEARN":
        import joblib

        predict: Predict = joblib.load(Path(directory, "model.joblib")).predict
        return predict
    if framework == "XGBOOST":
        import xgboost

        booster = xgboost.Booster(model_file=Path(directory, "model.json"))
        booster.set_param({"nthread": 1})
        inplace_predict: Predict = booster.inplace_predict
        return inplace_predict
    import tensorflow as tf

    session = tf.compat.v1.Session(graph=tf.Graph())
    graph = tf.compat.v1.saved_model.load(session, ["serve"], directory)
    definition = graph.signature_def["serving_default"]
    [output], [given] = ([info.name for info in side.values()] for side in (definition.outputs, definition.inputs))
    tensor = session.graph.get_tensor_by_name
    return session.make_callable(tensor(output), feed_list=[tensor(given)])  # type: ignore[no-any-return]
