"""Writes the models of test_explain_tensorflow.py; runs in a TensorFlow runtime."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

OUT = Path(sys.argv[1])
v1 = tf.compat.v1


def metadata(name, told):
    (OUT / name / "explanation_metadata.json").write_text(json.dumps(told))


def signature(**inputs):
    return tf.function(input_signature=[tf.TensorSpec(shape, dtype, name) for name, (dtype, shape) in inputs.items()])


class Linear(tf.Module):
    """y = 3 a - 2 b + 0.5 c[0] + 4 c[1] + len(text)."""

    def __init__(self):
        self.weights = tf.Variable([0.5, 4.0])

    @signature(a=(tf.float32, [None]), b=(tf.float32, [None, 1]), c=(tf.float32, [None, 2]), text=(tf.string, [None]))
    def __call__(self, a, b, c, text):
        length = tf.cast(tf.strings.length(text), tf.float32)
        return {"y": 3 * a - 2 * b[:, 0] + tf.linalg.matvec(c, self.weights) + length, "id": tf.strings.upper(text)}


linear = Linear()
tf.saved_model.save(linear, OUT / "linear", signatures=linear.__call__)

keras.utils.set_random_seed(0)
network = keras.Sequential(
    [keras.Input((4,), name="x"), keras.layers.Dense(8, "tanh"), keras.layers.Dense(3, "softmax")]
)
(OUT / "network").mkdir()
network.save(OUT / "network" / "model.keras")


class Picture(tf.Module):
    """Takes a file; what counts is the upper left quarter, in the red channel."""

    def __init__(self):
        mask = np.zeros((32, 32, 3), np.float32)
        mask[:16, :16, 0] = 1 / 256
        self.mask = tf.constant(mask)

    @signature(image_bytes=(tf.string, [None]))
    def preprocess(self, image_bytes):
        def decode(data):
            return tf.cast(tf.io.decode_png(data, channels=3), tf.float32) / 255

        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([None, None, 3], tf.float32))
        return {"pixels": tf.ensure_shape(images, [None, 32, 32, 3])}

    @signature(pixels=(tf.float32, [None, 32, 32, 3]))
    def model(self, pixels):
        score = tf.reduce_sum(pixels * self.mask, axis=[1, 2, 3])
        return {"probabilities": tf.stack([1 - score, score], axis=1)}

    @signature(image_bytes=(tf.string, [None]))
    def serving(self, image_bytes):
        return self.model(self.preprocess(image_bytes)["pixels"])


picture = Picture()
for name in ("picture", "raw_picture"):
    signatures = {
        "serving_default": picture.serving,
        "xai_preprocess": picture.preprocess,
        "xai_model": picture.model,
    }
    tf.saved_model.save(picture, OUT / name, signatures=signatures)
told = {"pixels": {"input_tensor_name": "pixels", "modality": "image"}}
labels = {"probabilities": {"output_tensor_name": "probabilities", "index_name_mapping": ["dark", "red"]}}
metadata("picture", {"inputs": told, "outputs": labels})
told["pixels"]["visualization"] = {"type": "Raw"}
metadata("raw_picture", {"inputs": told, "outputs": labels})
image = np.full((32, 32, 3), 20, np.uint8)
image[:16, :16] = (250, 30, 30)
image[20:28, 20:28] = (30, 250, 30)
(OUT / "image.png").write_bytes(tf.io.encode_png(image).numpy())

# TensorFlow 1: words are looked up, embedded and added up; the metadata explains the embedding.
with v1.Session(graph=tf.Graph()) as session:
    words = v1.placeholder(tf.string, [None, 3], name="words")
    size = v1.placeholder(tf.float32, [None], name="size")
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["good", "bad"], [1, 2]), 0)
    embedding = v1.get_variable("embedding", initializer=[[0.0, 0.0], [2.0, 1.0], [-4.0, 1.0]], use_resource=False)
    embedded = tf.identity(tf.nn.embedding_lookup(embedding, table.lookup(words)), name="embedded")
    score = tf.add(tf.reduce_sum(embedded[:, :, 0], axis=1), 10 * size, name="score")
    session.run([v1.global_variables_initializer(), v1.tables_initializer()])
    inputs = {"words": words, "size": size}
    v1.saved_model.simple_save(session, str(OUT / "text"), inputs, {"score": score}, v1.tables_initializer())
told = {
    "words": {
        "input_tensor_name": "words:0",
        "encoded_tensor_name": "embedded:0",
        "encoding": "concat_embedding",
    },
    "size": {"input_tensor_name": "size:0", "input_baselines": [1]},
}
metadata("text", {"inputs": told, "outputs": {"score": {"output_tensor_name": "score:0"}}, "framework": "tensorflow"})
