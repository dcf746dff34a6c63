"""Fits the three small models of the benchmark on Iris: `python make_models.py DIRECTORY`."""

import sys
from pathlib import Path

import joblib
import tensorflow as tf
import xgboost
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

target = Path(sys.argv[1])
features, labels = load_iris(return_X_y=True)
for name in ("sklearn", "xgboost"):
    (target / name).mkdir(parents=True)
joblib.dump(LogisticRegression(max_iter=1000).fit(features, labels), target / "sklearn" / "model.joblib")
boosted = xgboost.XGBRegressor(n_estimators=100, max_depth=3, n_jobs=1).fit(features, labels)
boosted.get_booster().save_model(target / "xgboost" / "model.json")
layers = tf.keras.layers
network = tf.keras.Sequential(
    [tf.keras.Input((4,)), layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dense(3, "softmax")]
)
network.export(target / "keras", verbose=False)
