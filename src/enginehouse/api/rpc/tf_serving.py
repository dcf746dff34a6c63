"""TensorFlow Serving's API: PredictionService and ModelService, as its clients and stubs call them.

A model spec's `name` is a model's id or full resource name, `version_label` a version's id, and `version` N the
version `vN`. Classify and Regress give serialized examples to signatures that take one string, as exported estimators
have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from enginehouse.api.rpc.calls import Callers, target
from enginehouse.api.rpc.messages import Message, message, methods
from enginehouse.api.rpc.tensors import column, from_tensor_proto, tensorflow_type, to_tensor_proto, to_text
from enginehouse.core.errors import InvalidArgument
from enginehouse.serving.inference import Inference, Inferred, Target
from enginehouse.serving.open_inference import tensor_metadata
from enginehouse.serving.types import ServedVersion

_PREDICTION, _MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_ANSWERS = {name: types[1] for service in (_PREDICTION, _MODEL) for name, types in methods(service).items()}
_ModelSpec = message("tensorflow.serving.ModelSpec")
_SignatureDefMap = message("tensorflow.serving.SignatureDefMap")
_SIGNATURE_DEF = "signature_def"
_AVAILABLE = 30


@dataclass(frozen=True)
class TfServingServices:
    """The methods; `inference` asks the versions."""

    inference: Inference

    def handlers(self, callers: Callers) -> list[grpc.GenericRpcHandler]:
        prediction = {
            "Predict": self._predict,
            "Classify": self._classify,
            "Regress": self._regress,
            "GetModelMetadata": self._metadata,
        }
        return [
            callers.handlers(_PREDICTION, prediction),
            callers.handlers(_MODEL, {"GetModelStatus": self._status}),
        ]

    async def _predict(self, request: Message, project: str) -> Message:
        spec = request.model_spec
        tensors = [from_tensor_proto(name, proto) for name, proto in request.inputs.items()]
        inferred = await self.inference.infer(_target(spec, project), tensors, spec.signature_name)
        outputs = {each["name"]: each for each in inferred.outputs}
        wanted = request.output_filter or list(outputs)
        if unknown := [name for name in wanted if name not in outputs]:
            raise InvalidArgument(
                f"There is no output {unknown[0]!r}; the signature has: {', '.join(outputs)}.", field="output_filter"
            )
        return _ANSWERS["Predict"](
            model_spec=_spec(inferred.version, spec.signature_name),
            outputs={name: to_tensor_proto(outputs[name]) for name in wanted},
        )

    async def _classify(self, request: Message, project: str) -> Message:
        inferred = await self._of_examples(request, project)
        names = {each["name"] for each in inferred.outputs}
        if not names & {"classes", "scores"}:
            raise InvalidArgument(
                f"The signature gives {', '.join(sorted(names))}; to classify, it must give classes or scores.",
                field="model_spec.signature_name",
            )
        labels = column(inferred.outputs, "classes") if "classes" in names else None
        scores = column(inferred.outputs, "scores") if "scores" in names else None
        answer = _ANSWERS["Classify"](model_spec=_spec(inferred.version, request.model_spec.signature_name))
        for row in range(len(labels or scores or [])):
            classes = answer.result.classifications.add().classes
            width = len((labels or scores or [])[row])
            for index in range(width):
                classes.add(label=labels[row][index] if labels else "", score=scores[row][index] if scores else 0.0)
        return answer

    async def _regress(self, request: Message, project: str) -> Message:
        inferred = await self._of_examples(request, project)
        rows = column(inferred.outputs, inferred.outputs[0]["name"])
        if len(inferred.outputs) != 1 or any(len(row) != 1 for row in rows):
            raise InvalidArgument(
                "To regress, a signature must give one output with one number per example.",
                field="model_spec.signature_name",
            )
        answer = _ANSWERS["Regress"](model_spec=_spec(inferred.version, request.model_spec.signature_name))
        for (value,) in rows:
            answer.result.regressions.add(value=value)
        return answer

    async def _of_examples(self, request: Message, project: str) -> Inferred:
        """The outputs for the serialized examples of a request, by a signature that takes one string."""
        spec = request.model_spec
        examples = _examples(request.input)
        wanted = _target(spec, project)
        signature = await self.inference.signature(self.inference.version(wanted), spec.signature_name)
        inputs = tensor_metadata(signature["inputs"])
        if [each["datatype"] for each in inputs] != ["BYTES"]:
            raise InvalidArgument(
                "The signature must take one string, the serialized example; use Predict for this one.",
                field="model_spec.signature_name",
            )
        data = [to_text(each) for each in examples]
        tensor = {"name": inputs[0]["name"], "datatype": "BYTES", "shape": [len(data)], "data": data}
        return await self.inference.infer(wanted, [tensor], spec.signature_name)

    async def _metadata(self, request: Message, project: str) -> Message:
        if list(request.metadata_field) != [_SIGNATURE_DEF]:
            raise InvalidArgument(f"Ask for {_SIGNATURE_DEF!r}, and that alone.", field="metadata_field")
        version = self.inference.version(_target(request.model_spec, project))
        told = _SignatureDefMap()
        for name, signature in (await self.inference.signatures(version)).items():
            definition = told.signature_def[name]
            definition.method_name = "tensorflow/serving/predict"
            for specs, infos in (
                (signature["inputs"], definition.inputs),
                (signature["outputs"], definition.outputs),
            ):
                for tensor in tensor_metadata(specs):
                    info = infos[tensor["name"]]
                    info.name, info.dtype = tensor["name"], tensorflow_type(tensor["datatype"])
                    for size in tensor["shape"]:
                        info.tensor_shape.dim.add(size=size)
        answer = _ANSWERS["GetModelMetadata"](model_spec=_spec(version, ""))
        answer.metadata[_SIGNATURE_DEF].Pack(told)
        return answer

    async def _status(self, request: Message, project: str) -> Message:
        """One version, the default one where none is named; it is started when it is asked, so it counts as there."""
        version = self.inference.version(_target(request.model_spec, project))
        answer = _ANSWERS["GetModelStatus"]()
        answer.model_version_status.add(version=_number(version), state=_AVAILABLE, status={})
        return answer


def _target(spec: Message, project: str) -> Target:
    asked = str(spec.version.value) if spec.HasField("version") else spec.version_label
    return target(project, spec.name, asked, field="model_spec.name")


def _number(version: ServedVersion) -> int:
    """N of `vN`; 0 for other ids, which no number can name."""
    match = re.fullmatch(r"v(\d{1,18})", version.name.version_id)
    return int(match[1]) if match else 0


def _spec(version: ServedVersion, signature_name: str) -> Message:
    spec = _ModelSpec(name=version.name.model_id, signature_name=signature_name)
    if number := _number(version):
        spec.version.value = number
    else:
        spec.version_label = version.name.version_id
    return spec


def _examples(given: Message) -> Sequence[bytes]:
    kind = given.WhichOneof("kind")
    if kind is None or not getattr(given, kind).examples:
        raise InvalidArgument("It must hold examples.", field="input")
    if kind == "example_list":
        return list(given.example_list.examples)
    # Serialized messages one after the other are merged when they are parsed; the later wins.
    listed: Any = given.example_list_with_context
    return [listed.context + example for example in listed.examples]
