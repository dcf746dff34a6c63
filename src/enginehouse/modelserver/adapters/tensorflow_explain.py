"""What explanations ask of a SavedModel: scores by the session of `tensorflow`, gradients by a second, eager copy.

A model with the signatures `xai_preprocess` and `xai_model` is explained from the former's outputs on, as in the
original: that is how a model that takes files is explained by its pixels. In a model of TensorFlow 1 the metadata may
name any tensor of the graph (an embedding, say) as an input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.signature_target import output_position
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError, describe
from enginehouse.modelserver.explain.metadata import FILE, Metadata
from enginehouse.modelserver.explain.target import DifferentiableTarget, as_scores

PREPROCESS, MODEL = "xai_preprocess", "xai_model"


class TensorFlowTarget(DifferentiableTarget):
    """A differentiable function of tensors.

    Args:
        model: what must stay alive for `function`: its variables are collected with it.
        parts: its inputs.
        function: from one tensor per input to the explained output.
        prepare: as `Adapter.prepare`.
        arrays: from a call's arrays to those of `parts`.
    """

    def __init__(
        self,
        model: Any,
        parts: Sequence[TensorSpec],
        output_name: str,
        label_names: Sequence[str],
        function: Callable[..., Any],
        prepare: Callable[[Mapping[str, Any]], Call],
        arrays: Callable[[Sequence[Array]], list[Array]],
    ) -> None:
        self._model = model
        self.parts = tuple(parts)
        self.output_name = output_name
        self.label_names = label_names
        self._function = function
        self._prepare = prepare
        self._arrays = arrays

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return self._prepare(request)

    def arrays(self, call: Call) -> list[Array]:
        with _in_words("Exception during running the graph"):
            return self._arrays(call.arrays)

    def scores(self, arrays: Sequence[Array]) -> Array:
        with _in_words("Exception during running the graph"):
            output = self._function(*self._tensors(arrays)).numpy()
        return as_scores(output, self.output_name)

    def gradients(self, arrays: Sequence[Array], labels: Array, positions: Sequence[int]) -> list[Array]:
        with _in_words("Exception during differentiating the graph"):
            tensors = self._tensors(arrays)
            asked = [tensors[position] for position in positions]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(asked)
                scores = tf.reshape(self._function(*tensors), (len(labels), -1))
                chosen = tf.reduce_sum(tf.gather(scores, labels, axis=1, batch_dims=1))
            found = tape.gradient(chosen, asked, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(slope).numpy() for slope in found]

    def encode_jpeg(self, picture: Array) -> bytes:
        encoded: bytes = tf.io.encode_jpeg(picture, quality=95).numpy()
        return encoded

    def _tensors(self, arrays: Sequence[Array]) -> list[Any]:
        return [
            tf.constant(array, dtype=spec.dtype) if spec.dtype.kind != "O" else tf.constant(array, tf.string)
            for spec, array in zip(self.parts, arrays, strict=True)
        ]


def make_target(
    directory: Path, name: str, signatures: Mapping[str, Any], metadata: Metadata, prepare: Callable[..., Call]
) -> TensorFlowTarget:
    """The target of a SavedModel's signature.

    Args:
        signatures: `signatures.Signature` by name.
        prepare: as `Adapter.prepare`.

    Raises:
        PredictionError: the metadata asks for what the model has not.
    """
    loaded = tf.saved_model.load(str(directory))
    explained = MODEL if MODEL in signatures else name
    signature = signatures[explained]
    position = output_position(signature.outputs, metadata)
    output = signature.outputs[position]
    label_names = metadata.output.label_names if metadata.output else ()
    inner = _inner_tensors(loaded, signature, metadata)
    if inner:
        parts = (*inner, *signature.inputs)
        feeds = [spec.tensor_name for spec in signature.inputs]
        wanted = [spec.tensor_name for spec in inner]
        encode = loaded.prune(feeds, wanted)
        score = loaded.prune([*wanted, *feeds], [output.tensor_name])

        def arrays(inputs: Sequence[Array]) -> list[Array]:
            tensors = [tf.constant(each) for each in inputs]
            return [*(each.numpy() for each in encode(*tensors)), *inputs]

        return TensorFlowTarget(
            loaded, parts, output.alias, label_names, lambda *tensors: score(*tensors)[0], prepare, arrays
        )
    function = loaded.signatures[explained]
    aliases = [spec.alias for spec in signature.inputs]

    def call(*tensors: Any) -> Any:
        return function(**dict(zip(aliases, tensors, strict=True)))[output.alias]

    preprocess = signatures.get(PREPROCESS) if explained == MODEL else None
    asked = name if explained == name else PREPROCESS if preprocess is not None else MODEL

    def prepare_as(request: Mapping[str, Any]) -> Call:
        found = prepare({**request, "signature_name": asked})
        return Call(name, found.arrays, found.n_rows, found.merge_key)

    def preprocessed(inputs: Sequence[Array]) -> list[Array]:
        if preprocess is None:
            return list(inputs)
        outputs = preprocess.function(*inputs)
        by_alias = {spec.alias: array for spec, array in zip(preprocess.outputs, outputs, strict=True)}
        missing = [alias for alias in aliases if alias not in by_alias]
        if missing:
            raise PredictionError(f"Explanation failed: {PREPROCESS} gives no {', '.join(missing)} for {MODEL}.")
        return [np.asarray(by_alias[alias]) for alias in aliases]

    return TensorFlowTarget(loaded, signature.inputs, output.alias, label_names, call, prepare_as, preprocessed)


def _inner_tensors(loaded: Any, signature: Any, metadata: Metadata) -> list[TensorSpec]:
    """The tensors of the metadata that are no inputs of the signature.

    Raises:
        PredictionError: there is no such tensor, or the graph can't be cut there.
    """
    known = {name for spec in signature.inputs for name in (spec.tensor_name, spec.alias)}
    known |= {spec.tensor_name.partition(":")[0] for spec in signature.inputs}
    found = []
    for told in metadata.inputs:
        tensor_name = told.explained_tensor
        if not tensor_name or tensor_name in known:
            continue
        if not hasattr(loaded, "prune"):
            if told.encoded_tensor:
                raise PredictionError(
                    f"Explanation failed: {FILE} names the tensor {tensor_name}; only in a graph of TensorFlow 1 can "
                    f"tensors other than a signature's inputs be explained. Export the signatures {PREPROCESS} and "
                    f"{MODEL} instead."
                )
            continue  # found by its alias, or refused there
        try:
            tensor = loaded.graph.get_tensor_by_name(tensor_name)
        except (KeyError, ValueError) as error:
            raise PredictionError(f"Explanation failed: {FILE}, input {told.name}: {describe(error)}") from None
        shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
        found.append(TensorSpec(told.name, tensor_name, np.dtype(tensor.dtype.as_numpy_dtype), shape))
    return found


class _in_words:
    """Turns TensorFlow's exceptions into PredictionErrors in its own words."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, PredictionError):
            words = getattr(error, "message", None) or describe(error)
            raise PredictionError(f"{self._what}: {str(words)[:2000]}") from error
