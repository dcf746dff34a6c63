# -*- coding: utf-8 -*-
"""Writes models of the time of runtime 1.8 into a directory; run by the Python of such a runtime, 2.7 or 3.6."""

import os
import sys

import numpy as np
import tensorflow as tf
import xgboost
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.externals import joblib
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

target = sys.argv[1]
features, labels = load_iris(return_X_y=True)
names = np.array(["setosa", "versicolor", "virginica"])[labels]


def folder(name):
    path = os.path.join(target, name)
    os.makedirs(path)
    return path


joblib.dump(RandomForestClassifier(10, random_state=0).fit(features, labels), folder("forest") + "/model.joblib")
scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, names)
joblib.dump(scaled, folder("labels") + "/model.pkl")
text = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good fine", "bad awful"], ["auf", "über"])
joblib.dump(text, folder("text") + "/model.joblib")
joblib.dump(RandomForestClassifier(), folder("not_fitted") + "/model.joblib")

matrix = xgboost.DMatrix(features, labels)
booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "silent": 1}, matrix, 5)
booster.save_model(folder("booster") + "/model.bst")
joblib.dump(xgboost.XGBClassifier(n_estimators=5).fit(features, labels), folder("xgbmodel") + "/model.joblib")

# An Estimator whose export has no serving_default, as those of raw features have not.
columns = [tf.feature_column.numeric_column("x", shape=[4])]
run = tf.estimator.RunConfig(tf_random_seed=1)
estimator = tf.estimator.DNNClassifier([8], columns, n_classes=3, config=run)
train = tf.estimator.inputs.numpy_input_fn({"x": features.astype(np.float32)}, labels, num_epochs=300, shuffle=True)
estimator.train(train)


def receive():
    x = tf.placeholder(tf.float32, [None, 4], name="x")
    return tf.estimator.export.ServingInputReceiver({"x": x}, {"x": x})


exported = estimator.export_savedmodel(folder("exported"), receive)
os.rename(exported, os.path.join(target.encode(), b"estimator"))

with tf.Graph().as_default(), tf.Session() as session:
    word = tf.placeholder(tf.string, [None], name="word")
    number = tf.placeholder(tf.float32, [None], name="number")
    positive = tf.placeholder(tf.float32, [None])
    with tf.control_dependencies([tf.assert_positive(positive, message="only positive numbers")]):
        root = tf.sqrt(positive)
    builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(target, "graph"))
    signature = tf.saved_model.signature_def_utils.predict_signature_def
    both = signature(
        {"word": word, "number": number}, {"said": tf.string_join([word, "!"]), "raw_bytes": word, "n": number}
    )
    signatures = {"serving_default": both, "root": signature({"x": positive}, {"y": root})}
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
    builder.save()


def field(number, data):
    """A field of a protocol buffer that holds bytes or a message."""
    size, text = len(data), bytearray([number << 3 | 2])
    while size > 127:
        text.append(size & 127 | 128)
        size >>= 7
    text.append(size)
    return bytes(text) + data


def request(signature, **inputs):
    """A PredictionLog, as TensorFlow Serving's own tools write it."""
    data = field(1, field(1, b"graph") + field(3, signature))
    for alias, proto in sorted(inputs.items()):
        data += field(2, field(1, alias.encode()) + field(2, proto.SerializeToString()))
    return field(6, field(1, data))


os.makedirs(os.path.join(target, "graph", "assets.extra"))
with tf.python_io.TFRecordWriter(os.path.join(target, "graph", "assets.extra", "tf_serving_warmup_requests")) as file:
    words = tf.make_tensor_proto(["a", "é"])
    file.write(request(b"", word=words, number=tf.make_tensor_proto(np.array([1, 2], np.float32))))
    file.write(request(b"root", x=tf.make_tensor_proto(4.0, shape=[3])))
    file.write(request(b"root", x=tf.make_tensor_proto([-1.0])))
    file.write(request(b"", word=words))
