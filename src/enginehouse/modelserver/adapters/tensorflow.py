"""TensorFlow: a SavedModel (`saved_model.pb` or `.pbtxt`), of an Estimator, of Keras' `model.export()` or of anything
else with signatures; or a Keras file `model.keras`, which is exported first.

The model runs in a graph session through a prepared callable, the quickest safe call for small batches: the same
signature called eagerly takes a third longer, `model.predict` hundreds of times as long.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # read at import: drops the banner, keeps warnings
import tensorflow as tf

from enginehouse.modelserver.adapters.signatures import Signature, SignatureAdapter
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.errors import ModelLoadError
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Target

_WORDS_LIMIT = 2000


class TensorFlowAdapter(SignatureAdapter):
    """A SavedModel in a session."""

    framework = f"TensorFlow {tf.__version__}"
    data_errors = (tf.errors.InvalidArgumentError,)

    def __init__(self, session: Any, signatures: dict[str, Signature]) -> None:
        super().__init__(signatures)
        self._session = session
        self._directory = Path()

    def words(self, error: Exception) -> str:
        return _words(error)

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        # Whole, and only for versions that need it: a second copy of the model.
        from enginehouse.modelserver.adapters import tensorflow_explain as explain

        if not gradients and explain.MODEL not in self._signatures:
            return super().target(signature, metadata, gradients=False)
        with _saved_model(self._directory) as directory:
            return explain.make_target(directory, signature, self._signatures, metadata, self.prepare)

    @classmethod
    def load(cls, directory: Path) -> TensorFlowAdapter:
        try:
            with _saved_model(directory) as saved_model:
                adapter = cls._load_saved_model(saved_model)
        except ModelLoadError:
            raise
        except Exception as error:
            raise ModelLoadError(f"Error loading the model: Could not load model: {_words(error)}") from error
        adapter._directory = directory
        return adapter

    @classmethod
    def _load_saved_model(cls, directory: Path) -> TensorFlowAdapter:
        v1 = tf.compat.v1
        session = v1.Session(graph=tf.Graph())
        with _quietly():
            meta_graph = v1.saved_model.load(session, ["serve"], str(directory))
        signatures = {
            name: _signature(session, definition)
            for name, definition in sorted(meta_graph.signature_def.items())
            if definition.inputs and definition.outputs
        }
        if not signatures:
            raise ModelLoadError("MetaGraph must have at least one signature_def with inputs and outputs.")
        return cls(session, signatures)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Nothing is said of deprecated ways: a session is the fastest there is (`bench/predict.py`)."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _saved_model(directory: Path) -> Iterator[Path]:
    """The SavedModel of a model's directory: itself, or what its Keras file is exported to for the moment."""
    if any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        yield directory
        return
    path = directory / "model.keras"
    if not path.is_file():
        raise ModelLoadError(
            "The model directory is expected to contain exactly one of the following: "
            "'saved_model.pb' file or 'saved_model.pbtxt' file. Please use SavedModel."
        )
    model = tf.keras.models.load_model(path, compile=False)
    with tempfile.TemporaryDirectory() as exported:
        model.export(exported, verbose=False)
        yield Path(exported)


def _signature(session: Any, definition: Any) -> Signature:
    inputs = tuple(_spec(alias, info) for alias, info in sorted(definition.inputs.items()))
    outputs = tuple(_spec(alias, info) for alias, info in sorted(definition.outputs.items()))
    tensor = session.graph.get_tensor_by_name
    function = session.make_callable(
        [tensor(spec.tensor_name) for spec in outputs], feed_list=[tensor(spec.tensor_name) for spec in inputs]
    )
    return Signature.of(inputs, outputs, function)


def _spec(alias: str, info: Any) -> TensorSpec:
    if not info.name:
        raise ModelLoadError(
            f"The input or output {alias} is a sparse or composite tensor; only dense ones are served."
        )
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(None if dim.size < 0 else int(dim.size) for dim in shape.dim)
    return TensorSpec(alias, info.name, np.dtype(tf.dtypes.as_dtype(info.dtype).as_numpy_dtype), dims)


def _words(error: Exception) -> str:
    """TensorFlow's own words without the trace of the graph's construction."""
    words = getattr(error, "message", None) or str(error) or type(error).__name__
    for end in ("\n\nOriginal stack trace", "\n\nErrors may have originated", "Detected at node"):
        words = words.split(end)[0]
    return words.strip()[:_WORDS_LIMIT]
