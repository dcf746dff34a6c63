"""Writes a SavedModel with an estimator's signatures, in a TensorFlow runtime: `make_served_model.py DIRECTORY`."""

import sys

import tensorflow as tf


def signature(**inputs):
    return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in inputs.items()])


class Served(tf.Module):
    """Doubles numbers of several types, and takes serialized examples with one feature `x`."""

    @signature(x=(tf.float32, [None, 2]), name=(tf.string, [None]), n=(tf.int64, [None]), half=(tf.float16, [None]))
    def serving_default(self, x, name, n, half):
        return {
            "x": x * 2,
            "text": tf.strings.join(["<", tf.strings.as_string(n), ">"]),
            "n": n * 2,
            "half": half * 2,
            "raw_bytes": name,
        }

    @signature(image=(tf.float32, [None, 2, 2]))
    def negative(self, image):
        return {"negative": 1 - image}

    @signature(inputs=(tf.string, [None]))
    def classify(self, inputs):
        x = self._x(inputs)
        labels = tf.tile(tf.constant([["low", "high"]]), [tf.shape(x)[0], 1])
        return {"classes": labels, "scores": tf.concat([1 - x, x], 1)}

    @signature(inputs=(tf.string, [None]))
    def regress(self, inputs):
        return {"outputs": self._x(inputs) * 2}

    def _x(self, examples):
        return tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]


served = Served()
signatures = {name: getattr(served, name) for name in ("serving_default", "negative", "classify", "regress")}
tf.saved_model.save(served, sys.argv[1], signatures)
