"""A scikit-learn trainer that reports by cloudml-hypertune, as its users wrote them.

Slow because it trains real models, and installs a package from PyPI once.
"""

from pathlib import Path

import pytest

from enginehouse.core.names import ObjectUri
from enginehouse.testing.packages import make_sdist
from enginehouse.testing.training import Trainings

TRAINER = """\
import argparse
import hypertune
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

parser = argparse.ArgumentParser()
parser.add_argument("--C", type=float, required=True)
parser.add_argument("--kernel", choices=["rbf", "poly"], required=True)
parser.add_argument("--degree", type=int, required=True)
arguments, unknown = parser.parse_known_args()
model = SVC(C=arguments.C, kernel=arguments.kernel, degree=arguments.degree)
iris = load_iris()
score = cross_val_score(model, iris.data, iris.target, cv=3).mean()
hypertune.HyperTune().report_hyperparameter_tuning_metric(
    hyperparameter_metric_tag="mean_accuracy", metric_value=score, global_step=3
)
"""
SPEC = {
    "goal": "MAXIMIZE",
    "hyperparameterMetricTag": "mean_accuracy",
    "maxTrials": 4,
    "maxParallelTrials": 2,
    "params": [
        {"parameterName": "C", "type": "DOUBLE", "minValue": 0.01, "maxValue": 10, "scaleType": "UNIT_LOG_SCALE"},
        {"parameterName": "kernel", "type": "CATEGORICAL", "categoricalValues": ["rbf", "poly"]},
        {"parameterName": "degree", "type": "DISCRETE", "discreteValues": [2, 3]},
    ],
}


@pytest.mark.slow
def test_scikit_learn_with_cloudml_hypertune(trainings: Trainings, tmp_path: Path) -> None:
    package = make_sdist(tmp_path, {"trainer/task.py": TRAINER}, requires=["cloudml-hypertune"])
    uri = ObjectUri(trainings.bucket, f"packages/hypertune/{package.name}")
    trainings.client.storage.upload_file(package, uri)
    trainings.submit("tune_sklearn", "", packageUris=[str(uri)], hyperparameters=SPEC)
    output = trainings.succeed("tune_sklearn", timeout_s=500)["trainingOutput"]
    assert output["completedTrialCount"] == "4"
    scores = [trial["finalMetric"]["objectiveValue"] for trial in output["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9
    assert {trial["finalMetric"]["trainingStep"] for trial in output["trials"]} == {"3"}
    assert {trial["hyperparameters"]["degree"] for trial in output["trials"]} <= {"2", "3"}
