"""Train a random forest on the Iris data and put it into the job's directory as `model.joblib`."""

import argparse
import logging

import fsspec
import joblib
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LABEL = "class"


def read_csv(path):
    """Features, (rows, 4), and class names, (rows,), from gs:// or the local disk."""
    table = pd.read_csv(path)
    return table[FEATURES].to_numpy(), table[LABEL].to_numpy()


def main(args):
    """Train, evaluate, export."""
    features, labels = read_csv(args.train_file)
    logging.info("training on %d rows", len(labels))
    classifier = RandomForestClassifier(n_estimators=args.trees, random_state=args.seed)
    classifier.fit(features, labels)

    features, labels = read_csv(args.eval_file)
    logging.info("evaluation: accuracy %.4f", classifier.score(features, labels))

    target = f"{args.job_dir.rstrip('/')}/model.joblib"
    with fsspec.open(target, "wb") as file:
        joblib.dump(classifier, file)
    logging.info("exported the model to %s", target)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-file", default="gs://iris-sklearn/train_data.csv")
    parser.add_argument("--eval-file", default="gs://iris-sklearn/test_data.csv")
    parser.add_argument("--job-dir", required=True, help="where the model goes: gs:// or local")
    parser.add_argument("--trees", type=int, default=100, help="number of trees in the forest")
    parser.add_argument("--seed", type=int, default=17, help="makes a training repeatable")
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("gcsfs").setLevel(logging.WARNING)
    main(parse_args())
