"""Writes event files as trainers do, with the TensorFlow of the runtime: `make_event_files.py DIRECTORY`."""

import sys

import keras
import numpy
import tensorflow as tf

directory = sys.argv[1]

# TensorFlow 1.x: simple_value, in a graph with scopes.
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    with tf.compat.v1.name_scope("tower"):
        value = tf.compat.v1.placeholder(tf.float32)
        tf.compat.v1.summary.scalar("rmse", value)
    writer = tf.compat.v1.summary.FileWriter(f"{directory}/one/eval_holdout", session.graph)
    merged = tf.compat.v1.summary.merge_all()
    for step in (100, 200, 300):
        writer.add_summary(session.run(merged, {value: 1.0 / step}), step)
    writer.close()

# TensorFlow 2.x: tensors, beside what is no scalar.
with tf.summary.create_file_writer(f"{directory}/two").as_default():
    for step in range(3):
        tf.summary.scalar("training/hptuning/metric", 0.5 + step / 8, step=step)
        tf.summary.scalar("half", tf.constant(0.25, tf.float16), step=step)
        tf.summary.histogram("weights", numpy.arange(10.0), step=step)
        tf.summary.text("note", "hello", step=step)
        tf.summary.image("picture", numpy.zeros((1, 4, 4, 3)), step=step)

# Keras' callback.
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse", metrics=["mae"])
x, y = numpy.random.rand(32, 2), numpy.random.rand(32)
callback = keras.callbacks.TensorBoard(f"{directory}/keras")
history = model.fit(x, y, validation_data=(x, y), epochs=3, verbose=0, callbacks=[callback]).history
print(history["val_mae"][-1], history["loss"][-1])
