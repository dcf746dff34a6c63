"""Train the Iris classifier, evaluate it, and export it below the job's directory."""

import argparse
import logging
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own start-up notes

import fsspec
import keras

from enginehouse import sdk  # comes with every job
from trainer import model as iris

LOG_EVERY_STEPS = 200


class LogProgress(keras.callbacks.Callback):
    """A line in the job's log every now and then."""

    def on_epoch_end(self, epoch, logs=None):
        logging.info(
            "step %d: loss %.4f, accuracy %.4f", (epoch + 1) * self.params["steps"], logs["loss"], logs["accuracy"]
        )


def train_and_evaluate(args):
    """Train, evaluate and export as the arguments say."""
    keras.utils.set_random_seed(args.seed)
    features, labels = iris.read_csv(args.train_files)
    logging.info("read %d rows to train on", len(labels))
    sizes = iris.layer_sizes(args.first_layer_size, args.num_layers, args.scale_factor)
    model = iris.build(features, sizes, args.learning_rate)

    steps = args.train_steps
    if args.num_epochs is not None:
        steps = min(steps, iris.steps_in(len(labels), args.train_batch_size, args.num_epochs))
    logging.info("training %d steps, hidden layers %s", steps, sizes)
    data = iris.input_fn(features, labels, args.train_batch_size, shuffle=True)
    rounds = max(1, round(steps / LOG_EVERY_STEPS))
    steps_per_round = -(-steps // rounds)
    progress = [LogProgress()]
    model.fit(data, steps_per_epoch=steps_per_round, epochs=rounds, shuffle=False, verbose=0, callbacks=progress)

    data = iris.input_fn(*iris.read_csv(args.eval_files), args.eval_batch_size, num_epochs=1)
    result = model.evaluate(data.take(args.eval_steps), verbose=0, return_dict=True)
    logging.info("evaluation: accuracy %.4f, loss %.4f", result["accuracy"], result["loss"])
    sdk.report("accuracy", result["accuracy"], step=steps)

    target = f"{args.job_dir.rstrip('/')}/export/iris/{int(time.time())}"
    with tempfile.TemporaryDirectory() as scratch:
        iris.export(model, f"{scratch}/model")
        filesystem, path = fsspec.core.url_to_fs(target)
        filesystem.put(f"{scratch}/model/", f"{path}/", recursive=True)
    logging.info("exported the model to %s", target)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-files", nargs="+", required=True, help="CSV files to train on: gs:// or local")
    parser.add_argument("--eval-files", nargs="+", required=True, help="CSV files to evaluate on: gs:// or local")
    parser.add_argument("--job-dir", required=True, help="where the model goes: gs:// or local")
    parser.add_argument("--num-epochs", type=int, help="most passes over the training data (default: no limit)")
    parser.add_argument("--train-batch-size", type=int, default=20)
    parser.add_argument("--eval-batch-size", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--first-layer-size", type=int, default=256, help="width of the first hidden layer")
    parser.add_argument("--num-layers", type=int, default=3, help="number of hidden layers")
    parser.add_argument("--scale-factor", type=float, default=0.7, help="how quickly the hidden layers get narrower")
    parser.add_argument("--train-steps", type=int, default=100, help="most batches to train on")
    parser.add_argument("--eval-steps", type=int, default=100, help="most batches to evaluate on")
    parser.add_argument("--seed", type=int, default=17, help="makes a training repeatable")
    parser.add_argument("--verbosity", choices=["DEBUG", "INFO", "WARNING", "ERROR", "FATAL"], default="INFO")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger().setLevel(arguments.verbosity)
    for library in ("gcsfs", "tensorflow"):
        logging.getLogger(library).setLevel("WARNING")
    train_and_evaluate(arguments)
