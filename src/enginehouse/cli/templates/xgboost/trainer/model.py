"""Train boosted trees on the Iris data and put them into the job's directory as `model.bst`."""

import argparse
import logging

import fsspec
import pandas as pd
import xgboost as xgb

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LABEL = "class"
CLASSES = ["setosa", "versicolor", "virginica"]


def read_csv(path):
    """The rows of a CSV file, from gs:// or the local disk; a class is its place in CLASSES."""
    table = pd.read_csv(path)
    labels = table[LABEL].map(CLASSES.index)
    return xgb.DMatrix(table[FEATURES].to_numpy(), label=labels.to_numpy())


def main(args):
    """Train, evaluate, export."""
    train, test = read_csv(args.train_file), read_csv(args.eval_file)
    logging.info("training on %d rows", train.num_row())
    parameters = {
        "objective": "multi:softprob",
        "num_class": len(CLASSES),
        "max_depth": args.max_depth,
        "eta": args.learning_rate,
        "seed": args.seed,
    }
    booster = xgb.train(parameters, train, num_boost_round=args.rounds)

    hits = booster.predict(test).argmax(axis=1) == test.get_label()
    logging.info("evaluation: accuracy %.4f", hits.mean())

    target = f"{args.job_dir.rstrip('/')}/model.bst"
    with fsspec.open(target, "wb") as file:
        file.write(booster.save_raw("ubj"))
    logging.info("exported the model to %s", target)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-file", default="gs://iris-xgboost/train_data.csv")
    parser.add_argument("--eval-file", default="gs://iris-xgboost/test_data.csv")
    parser.add_argument("--job-dir", required=True, help="where the model goes: gs:// or local")
    parser.add_argument("--rounds", type=int, default=50, help="number of trees per class")
    parser.add_argument("--max-depth", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=17, help="makes a training repeatable")
    return parser.parse_args()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("gcsfs").setLevel(logging.WARNING)
    main(parse_args())
