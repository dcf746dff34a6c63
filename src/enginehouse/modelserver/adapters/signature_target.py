"""One output of a signature, as explanations ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from enginehouse.modelserver.adapters.base import Call
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import PredictionError, describe
from enginehouse.modelserver.explain.metadata import FILE, Metadata
from enginehouse.modelserver.explain.target import DifferentiableTarget, Target, as_scores

_USUAL_OUTPUTS = ("probabilities", "scores", "logits", "probability", "output_probability", "logistic")


class Callable_(Protocol):
    """What a target needs of `signatures.Signature`."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def function(self) -> Callable[..., Sequence[Any]]: ...


class SignatureTarget(Target):
    """A signature's output by the signature's own function.

    Args:
        prepare: as `Adapter.prepare`.
        words: the framework's words for an exception.
    """

    def __init__(
        self,
        signature: Callable_,
        metadata: Metadata,
        prepare: Callable[[Mapping[str, Any]], Call],
        words: Callable[[Exception], str] = describe,
    ) -> None:
        self._signature = signature
        self._prepare = prepare
        self._words = words
        self.parts = signature.inputs
        self._output = output_position(signature.outputs, metadata)
        self.output_name = signature.outputs[self._output].alias
        self.label_names = metadata.output.label_names if metadata.output else ()

    def prepare(self, request: Mapping[str, Any]) -> Call:
        return self._prepare(request)

    def scores(self, arrays: Sequence[Array]) -> Array:
        try:
            output = self._signature.function(*arrays)[self._output]
        except Exception as error:
            raise PredictionError(f"Exception during running the graph: {self._words(error)}") from error
        return as_scores(output, self.output_name)


class DifferentiableSignatureTarget(SignatureTarget, DifferentiableTarget):
    """The same with gradients.

    Args:
        differentiate: `DifferentiableTarget.gradients`, with the output's position first.
    """

    def __init__(
        self,
        signature: Callable_,
        metadata: Metadata,
        prepare: Callable[[Mapping[str, Any]], Call],
        words: Callable[[Exception], str],
        differentiate: Callable[[int, Sequence[Array], Array, Sequence[int]], list[Array]],
    ) -> None:
        super().__init__(signature, metadata, prepare, words)
        self._differentiate = differentiate

    def gradients(self, arrays: Sequence[Array], labels: Array, positions: Sequence[int]) -> list[Array]:
        try:
            return self._differentiate(self._output, arrays, labels, positions)
        except Exception as error:
            raise PredictionError(f"Exception during differentiating the graph: {self._words(error)}") from error


def output_position(outputs: Sequence[TensorSpec], metadata: Metadata) -> int:
    """Which output is explained: the metadata's, else the one with a usual name, else the first with numbers.

    Raises:
        PredictionError: there is none.
    """
    told = metadata.output
    if told is not None:
        for position, spec in enumerate(outputs):
            if told.tensor and told.tensor in (spec.tensor_name, spec.alias):
                return position
        by_name = [position for position, spec in enumerate(outputs) if told.name == spec.alias]
        if by_name or len(outputs) == 1:
            return by_name[0] if by_name else 0
        raise PredictionError(
            f"Explanation failed: {FILE} names the output {told.name} ({told.tensor or 'no tensor'}), but the model "
            f"has: {', '.join(f'{spec.alias} ({spec.tensor_name})' for spec in outputs)}."
        )
    for name in _USUAL_OUTPUTS:
        for position, spec in enumerate(outputs):
            if spec.alias == name and spec.dtype.kind in "fO":
                return position
    for position, spec in enumerate(outputs):
        if spec.dtype.kind == "f":
            return position
    raise PredictionError(
        "Explanation failed: no output of the model is floating-point, so that nothing can be attributed; it has: "
        f"{', '.join(spec.alias for spec in outputs)}. Name one in {FILE}."
    )
