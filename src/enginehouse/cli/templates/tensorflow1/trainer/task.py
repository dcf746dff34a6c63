"""Trains the Iris classifier on one machine or on many, evaluates it, and exports it below the job's directory."""

import argparse
import json
import os

import tensorflow as tf

import trainer.model as model


def get_session_config():
    """Which processes this one talks to: the master and each worker to the parameter servers and to itself alone."""
    task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {})
    if task.get("type") == "master":
        return tf.ConfigProto(device_filters=["/job:ps", "/job:master"])
    if task.get("type") == "worker":
        return tf.ConfigProto(device_filters=["/job:ps", "/job:worker/task:%d" % task["index"]])
    return None


def train_and_evaluate(hparams):
    """Train and evaluate in turn until the steps are done, then export once."""
    train_spec = tf.estimator.TrainSpec(
        lambda: model.input_fn(
            hparams.train_files, num_epochs=hparams.num_epochs, batch_size=hparams.train_batch_size
        ),
        max_steps=hparams.train_steps,
    )
    exporter = tf.estimator.FinalExporter("iris", model.SERVING_FUNCTIONS[hparams.export_format])
    eval_spec = tf.estimator.EvalSpec(
        lambda: model.input_fn(hparams.eval_files, shuffle=False, batch_size=hparams.eval_batch_size),
        steps=hparams.eval_steps,
        exporters=[exporter],
        name="iris-eval",
    )
    run_config = tf.estimator.RunConfig(session_config=get_session_config()).replace(model_dir=hparams.job_dir)
    layer_sizes = [max(2, int(hparams.first_layer_size * hparams.scale_factor**i)) for i in range(hparams.num_layers)]
    print("model dir %s, layers %s" % (run_config.model_dir, layer_sizes))
    estimator = model.build_estimator(run_config, layer_sizes, hparams.learning_rate)
    tf.estimator.train_and_evaluate(estimator, train_spec, eval_spec)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-files", nargs="+", default=["gs://iris-dataset/train_data.csv"])
    parser.add_argument("--eval-files", nargs="+", default=["gs://iris-dataset/test_data.csv"])
    parser.add_argument("--job-dir", default="gs://iris-dataset/jobs/iris", help="where checkpoints and the model go")
    parser.add_argument("--num-epochs", type=int, help="most passes over the training data (default: no limit)")
    parser.add_argument("--train-batch-size", type=int, default=20)
    parser.add_argument("--eval-batch-size", type=int, default=20)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--first-layer-size", type=int, default=256, help="width of the first hidden layer")
    parser.add_argument("--num-layers", type=int, default=3, help="number of hidden layers")
    parser.add_argument("--scale-factor", type=float, default=0.7, help="how quickly the layers get narrower")
    parser.add_argument("--train-steps", type=int, default=100)
    parser.add_argument("--eval-steps", type=int, default=100)
    parser.add_argument(
        "--export-format", choices=["JSON", "CSV"], default="CSV", help="what the model is asked with"
    )
    parser.add_argument("--verbosity", choices=["DEBUG", "ERROR", "FATAL", "INFO", "WARN"], default="INFO")
    args, _ = parser.parse_known_args()
    return args


if __name__ == "__main__":
    args = parse_args()
    tf.logging.set_verbosity(getattr(tf.logging, args.verbosity))
    train_and_evaluate(tf.contrib.training.HParams(**vars(args)))
