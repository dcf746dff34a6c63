"""The model: four measurements of a flower in, the scores of three classes out."""

import csv
import math

import fsspec
import keras
import numpy as np
import tensorflow as tf

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LABEL = "class"
CLASSES = ["setosa", "versicolor", "virginica"]


def read_csv(paths):
    """Read CSV files with a header line, from gs:// or the local disk.

    Returns:
        Features, (rows, 4) float32, and class numbers, (rows,) int32.
    """
    features, labels = [], []
    for path in paths:
        with fsspec.open(path, "rt", newline="") as file:
            for row in csv.DictReader(file):
                features.append([float(row[name]) for name in FEATURES])
                labels.append(CLASSES.index(row[LABEL]))
    return np.array(features, np.float32), np.array(labels, np.int32)


def input_fn(features, labels, batch_size, num_epochs=None, shuffle=False):
    """Batches of the data; without end when `num_epochs` is None."""
    dataset = tf.data.Dataset.from_tensor_slices((features, labels))
    if shuffle:
        dataset = dataset.shuffle(len(labels))
    return dataset.repeat(num_epochs).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def layer_sizes(first_layer_size, num_layers, scale_factor):
    """Each hidden layer is `scale_factor` times as wide as the one before, and at least 2 wide."""
    return [max(2, int(first_layer_size * scale_factor**layer)) for layer in range(num_layers)]


def build(features, sizes, learning_rate):
    """A classifier with one hidden layer per size, ready to be fitted.

    Args:
        features: the training features; their mean and variance scale what the model is given.
    """
    inputs = keras.Input([len(FEATURES)])
    scaling = keras.layers.Normalization(mean=features.mean(axis=0), variance=features.var(axis=0))
    hidden = scaling(inputs)
    for size in sizes:
        hidden = keras.layers.Dense(size, activation="relu")(hidden)
    scores = keras.layers.Dense(len(CLASSES), activation="softmax")(hidden)
    model = keras.Model(inputs, scores)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=25,
        jit_compile=False,
    )
    return model


def steps_in(rows, batch_size, num_epochs):
    """How many batches `num_epochs` passes over the data make."""
    return math.ceil(rows * num_epochs / batch_size)


def export(model, directory):
    """Write a SavedModel that takes the named measurements and answers with the class's name and all scores."""
    archive = keras.export.ExportArchive()
    archive.track(model)

    def serve(measurements):
        scores = model(tf.stack([measurements[name] for name in FEATURES], axis=1))
        return {"class": tf.gather(tf.constant(CLASSES), tf.argmax(scores, axis=1)), "scores": scores}

    signature = {name: tf.TensorSpec([None], tf.float32, name=name) for name in FEATURES}
    archive.add_endpoint("serve", serve, input_signature=[signature])
    archive.write_out(directory, verbose=False)
