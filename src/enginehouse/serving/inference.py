"""Inference on tensors: what all protocols that speak of tensors have in common.

In: tensors as the JSON of the Open Inference Protocol has them (`open_inference`); out: the same, and the version
that answered. Called by the HTTP and gRPC forms of the protocol and by the one of TensorFlow Serving. Belongs to the
engine's event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from enginehouse.core.errors import Internal, InvalidArgument, error_of
from enginehouse.serving.open_inference import to_instances, to_packed, to_tensors
from enginehouse.serving.pool import ServerPool
from enginehouse.serving.router import PredictApp
from enginehouse.serving.types import Answer, ServedVersion

_DEFAULT_SIGNATURES = ("serving_default", "predict")


@dataclass(frozen=True)
class Target:
    """What a request names: a model, and one of its versions or None for whatever has its traffic."""

    project: str
    model_id: str
    version_id: str | None = None


@dataclass(frozen=True)
class Inferred:
    """The answer to a request, and who gave it."""

    version: ServedVersion
    outputs: list[dict[str, Any]]


@dataclass(frozen=True)
class Inference:
    """Asks the versions that requests mean.

    Args:
        predict: knows which version a name means.
        pool: the model servers.
    """

    predict: PredictApp
    pool: ServerPool

    def version(self, target: Target) -> ServedVersion:
        """The version, or the model's default one. Raises NotFound, FailedPrecondition."""
        return self.predict.version(target.project, target.model_id, target.version_id)

    async def signatures(self, version: ServedVersion) -> Mapping[str, dict[str, Any]]:
        """What the model tells of itself, by signature: see `DeployReport`. Starts a model server if need be."""
        return (await self.pool.deploy(version)).signatures

    async def signature(self, version: ServedVersion, asked: str = "") -> dict[str, Any]:
        """Inputs and outputs of a signature, of the default one for "".

        Raises:
            InvalidArgument: there is none of that name.
        """
        signatures = await self.signatures(version)
        name = asked or next((each for each in _DEFAULT_SIGNATURES if each in signatures), next(iter(signatures)))
        if name not in signatures:
            raise InvalidArgument(
                f"There is no signature {name!r}; the model has: {', '.join(signatures)}.", field="signature_name"
            )
        return signatures[name]

    async def infer(self, target: Target, tensors: Any, signature_name: str = "") -> Inferred:
        """The outputs for tensors of inputs.

        Raises:
            EngineError: what is wrong with the request, or why there is no answer.
        """
        signature = await self.signature(self.version(target), signature_name)
        where, names = (target.project, target.model_id, target.version_id), list(signature["inputs"])
        body = to_packed(tensors, names, signature_name) if self.predict.takes_tensors(*where) else None
        if body is None:
            told = {"instances": to_instances(tensors, names)}
            body = orjson.dumps({**told, "signature_name": signature_name} if signature_name else told)
        version, answer = await self.predict.predict(*where, body)
        predictions = _predictions(answer)
        signature = await self.signature(version, signature_name)
        return Inferred(version, to_tensors(predictions, signature["outputs"]))


def _predictions(answer: Answer) -> list[Any]:
    try:
        told = orjson.loads(answer.body)
    except ValueError:
        told = None
    match told:
        case {"error": {"status": status, "message": message}}:
            raise error_of(str(status), str(message))
        case {"error": error}:
            raise InvalidArgument(str(error))
        case {"predictions": [*predictions]}:
            return predictions
    raise Internal(f"The version's container answered with {answer.status} and without a list of predictions.")
