"""The bare framework loop that `batch.py` measures against; run by a runtime's interpreter.

    python batch_loop.py make FRAMEWORK DIRECTORY ROWS    a model and the rows to predict, as rows.csv
    python batch_loop.py run FRAMEWORK DIRECTORY FILE     predict the rows, print rows/s without the import

The loop is what one would write by hand to be quick: pandas reads chunks, the model takes them as arrays, and the
predictions go out a chunk at a time.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas

CHUNK_ROWS = {"SCIKIT_LEARN": 65_536, "XGBOOST": 65_536, "TENSORFLOW": 8_192}
COLUMNS = 8


def make(framework: str, directory: Path, rows: int) -> None:
    """Fit a model on made-up data and save it as one deploys it."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(5000, COLUMNS)).astype(np.float32)
    labels = (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int)
    if framework == "SCIKIT_LEARN":
        import joblib
        from sklearn.linear_model import LogisticRegression

        joblib.dump(LogisticRegression().fit(features, labels), directory / "model.joblib")
    elif framework == "XGBOOST":
        import xgboost

        xgboost.XGBClassifier(n_estimators=100, max_depth=6).fit(features, labels).save_model(
            directory / "model.json"
        )
    else:
        import keras

        layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential([keras.Input([COLUMNS]), *layers])
        model.export(directory, verbose=False)
        model.save(directory.with_suffix(".keras"))
    with (directory.parent / "rows.csv").open("wb") as file:
        for start in range(0, rows, 100_000):
            part = generator.normal(size=(min(100_000, rows - start), COLUMNS)).round(4)
            file.write(orjson.dumps(part.tolist())[2:-2].replace(b"],[", b"\n") + b"\n")


def load(framework: str, directory: Path) -> Any:
    """A function from an array to the predictions."""
    if framework == "SCIKIT_LEARN":
        import joblib

        return joblib.load(directory / "model.joblib").predict
    if framework == "XGBOOST":
        import xgboost

        booster = xgboost.Booster(model_file=directory / "model.json")
        booster.set_param({"nthread": 1})
        return booster.inplace_predict
    import keras

    return keras.models.load_model(directory.with_suffix(".keras")).predict_on_batch


def run(framework: str, directory: Path, output: Path) -> None:
    """The loop."""
    predict = load(framework, directory)
    began, rows = time.perf_counter(), 0
    chunks = pandas.read_csv(directory.parent / "rows.csv", header=None, chunksize=CHUNK_ROWS[framework])
    with output.open("wb") as file:
        for chunk in chunks:
            predictions = predict(chunk.to_numpy(dtype=np.float32)).tolist()
            rows += len(predictions)
            if isinstance(predictions[0], list):
                file.write(b"\n".join(map(orjson.dumps, predictions)) + b"\n")
            else:
                file.write(orjson.dumps(predictions)[1:-1].replace(b",", b"\n") + b"\n")
    print(rows / (time.perf_counter() - began))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        run(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
