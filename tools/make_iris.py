"""Write the Iris rows that `mle init` ships, from the set that comes with scikit-learn.

    .venv/bin/python tools/make_iris.py

R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936; scikit-learn's copy, BSD-3-Clause.
"""

from __future__ import annotations

import csv
from pathlib import Path

from sklearn.datasets import load_iris

TARGET = Path(__file__).parents[1] / "src/enginehouse/cli/templates/iris.csv"
HEADER = ["sepal_length", "sepal_width", "petal_length", "petal_width", "class"]


def main() -> None:
    """Write 150 rows, in scikit-learn's order, with class names for class numbers."""
    iris = load_iris()
    with TARGET.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for features, label in zip(iris.data, iris.target, strict=True):
            writer.writerow([*(f"{value:.1f}" for value in features), iris.target_names[label]])


if __name__ == "__main__":
    main()
