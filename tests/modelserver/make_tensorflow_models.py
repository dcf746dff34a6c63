"""Writes the models of test_tensorflow.py; runs in a TensorFlow runtime: `make_tensorflow_models.py DIRECTORY`."""

import sys
from pathlib import Path

import keras
import tensorflow as tf

OUT = Path(sys.argv[1])
keras.utils.set_random_seed(0)

iris = keras.Sequential(
    [keras.Input((4,), name="x"), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
)
iris.export(OUT / "keras_export", verbose=False)
(OUT / "keras_file").mkdir()
iris.save(OUT / "keras_file" / "model.keras")

colour = keras.Input((1,), dtype="string", name="colour")
size = keras.Input((1,), name="size")
one_hot = keras.layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")(colour)
hidden = keras.layers.Concatenate()([one_hot, keras.layers.Normalization(mean=1.0, variance=4.0)(size)])
outputs = {"price": keras.layers.Dense(1)(hidden), "class": keras.layers.Dense(2)(hidden)}
keras.Model({"colour": colour, "size": size}, outputs).export(OUT / "keras_lookup", verbose=False)


def signature(**inputs):
    return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in inputs.items()])


class Module(tf.Module):
    """Several signatures that use a table and a variable."""

    def __init__(self):
        names = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64))
        self.table = tf.lookup.StaticHashTable(names, -1)
        self.factor = tf.Variable(2.0)

    @signature(name=(tf.string, [None]), x=(tf.float32, [None, 2]))
    def serving_default(self, name, x):
        return {
            "id": self.table.lookup(name),
            "sum": tf.reduce_sum(x, 1) * self.factor,
            "raw_bytes": name,
            "label": tf.strings.join([name, "!"]),
        }

    @signature(image_bytes=(tf.string, [None]))
    def length(self, image_bytes):
        return {"length": tf.strings.length(image_bytes)}

    @signature(x=(tf.float32, [None]))
    def uneven(self, x):
        return {"all": x, "first_two": x[:2]}

    @signature(x=(tf.int32, [None]))
    def positive(self, x):
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="only positive numbers")]):
            return {"root": tf.sqrt(tf.cast(x, tf.float32))}

    @signature(x=(tf.float32, [1, 2]))
    def one_row(self, x):
        return {"sum": tf.reduce_sum(x, 1)}

    @signature(x=(tf.float32, [None]))
    def total(self, x):
        return {"total": tf.reduce_sum(x)}


module = Module()
names = ["serving_default", "length", "uneven", "positive", "one_row", "total"]
tf.saved_model.save(module, OUT / "module", signatures={name: getattr(module, name) for name in names})
tf.saved_model.save(module, OUT / "one_signature", signatures={"score": module.length})
tf.saved_model.save(module, OUT / "no_default", signatures={"a": module.length, "b": module.uneven})
tf.saved_model.save(module, OUT / "predict_default", signatures={"a": module.uneven, "predict": module.length})
tf.saved_model.save(module, OUT / "picky", signatures={"serving_default": module.positive})

# As TensorFlow 1 wrote it: variables and a table of a graph, restored by its own operations.
v1 = tf.compat.v1
with v1.Session(graph=tf.Graph()) as session:
    x = v1.placeholder(tf.float32, [None, 1], name="x")
    weight = v1.get_variable("weight", initializer=3.0, use_resource=False)
    classes = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([3, 6], ["low", "high"]), "?")
    y = tf.squeeze(x * weight, 1)
    label = classes.lookup(tf.cast(y, tf.int32))
    session.run([v1.global_variables_initializer(), v1.tables_initializer()])
    v1.saved_model.simple_save(
        session, str(OUT / "version_one"), {"x": x}, {"y": y, "label": label}, v1.tables_initializer()
    )

(OUT / "no_variables").mkdir()
(OUT / "no_variables" / "saved_model.pb").write_bytes((OUT / "module" / "saved_model.pb").read_bytes())
