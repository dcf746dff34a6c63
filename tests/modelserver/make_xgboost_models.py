"""Writes the models of test_xgboost.py; runs in an XGBoost runtime: `make_xgboost_models.py DIRECTORY`."""

import pickle
import sys
from pathlib import Path

import joblib
import numpy as np
import xgboost
from sklearn.datasets import load_iris

OUT = Path(sys.argv[1])
features, labels = load_iris(return_X_y=True)
names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


def folder(name):
    (OUT / name).mkdir()
    return OUT / name


parameters = {"objective": "multi:softprob", "num_class": 3, "nthread": 1, "seed": 0}
booster = xgboost.train(parameters, xgboost.DMatrix(features, labels), 10)
for suffix in ("bst", "json", "ubj"):
    booster.save_model(folder(suffix) / f"model.{suffix}")
(folder("json_as_bst") / "model.bst").write_bytes((OUT / "json" / "model.json").read_bytes())
joblib.dump(booster, folder("joblib_booster") / "model.joblib")
(folder("pickled_booster") / "model.pkl").write_bytes(pickle.dumps(booster))

named = xgboost.train(parameters, xgboost.DMatrix(features, labels, feature_names=names), 10)
named.save_model(folder("named") / "model.json")

classifier = xgboost.XGBClassifier(n_estimators=10, n_jobs=1, random_state=0).fit(features, labels)
joblib.dump(classifier, folder("classifier") / "model.joblib")
joblib.dump(xgboost.XGBClassifier(), folder("unfitted") / "model.joblib")
joblib.dump({"not": "a model"}, folder("dictionary") / "model.joblib")
np.save(OUT / "expected.npy", booster.predict(xgboost.DMatrix(features)))
