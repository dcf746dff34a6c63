"""The model: a deep classifier of four measurements, and how its data is read, in training and in serving."""

import tensorflow as tf

CSV_COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width", "class"]
CSV_COLUMN_DEFAULTS = [[0.0], [0.0], [0.0], [0.0], [""]]
LABEL_COLUMN = "class"
LABELS = ["setosa", "versicolor", "virginica"]
FEATURES = [name for name in CSV_COLUMNS if name != LABEL_COLUMN]

SHUFFLE_BUFFER_ROWS = 1000


def build_estimator(config, hidden_units, learning_rate):
    """A DNNClassifier that writes checkpoints and summaries to the directory of `config`."""
    return tf.estimator.DNNClassifier(
        hidden_units=hidden_units,
        feature_columns=[tf.feature_column.numeric_column(name) for name in FEATURES],
        n_classes=len(LABELS),
        optimizer=tf.train.AdamOptimizer(learning_rate),
        config=config,
    )


def parse_csv(lines):
    """Lines of text as a dictionary of columns."""
    columns = tf.decode_csv(lines, record_defaults=CSV_COLUMN_DEFAULTS)
    return dict(zip(CSV_COLUMNS, columns))


def parse_label(names):
    """Names of species as numbers, from a lookup table."""
    table = tf.contrib.lookup.index_table_from_tensor(tf.constant(LABELS))
    return table.lookup(names)


def input_fn(filenames, num_epochs=None, shuffle=True, batch_size=20):
    """Features and labels of CSV files, each with a header line."""
    files = tf.data.Dataset.from_tensor_slices(filenames)
    dataset = files.flat_map(lambda name: tf.data.TextLineDataset(name).skip(1))
    if shuffle:
        dataset = dataset.shuffle(SHUFFLE_BUFFER_ROWS)
    dataset = dataset.repeat(num_epochs).batch(batch_size).map(parse_csv).prefetch(1)
    features = dataset.make_one_shot_iterator().get_next()
    return features, parse_label(features.pop(LABEL_COLUMN))


def csv_serving_input_fn():
    """Serving takes lines of the CSV files; the species in them is not looked at, and may be empty."""
    rows = tf.placeholder(shape=[None], dtype=tf.string)
    features = parse_csv(rows)
    features.pop(LABEL_COLUMN)
    return tf.estimator.export.ServingInputReceiver(features, {"csv_row": rows})


def json_serving_input_fn():
    """Serving takes a number for each measurement, by name."""
    inputs = {name: tf.placeholder(shape=[None], dtype=tf.float32) for name in FEATURES}
    return tf.estimator.export.ServingInputReceiver(inputs, inputs)


SERVING_FUNCTIONS = {"CSV": csv_serving_input_fn, "JSON": json_serving_input_fn}
