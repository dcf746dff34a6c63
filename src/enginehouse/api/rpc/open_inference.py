"""The Open Inference Protocol, version 2: `inference.GRPCInferenceService`, for clients of Triton and KServe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from enginehouse import __version__
from enginehouse.api.rpc.calls import Callers, target
from enginehouse.api.rpc.messages import Message, methods
from enginehouse.api.rpc.tensors import fill_contents, from_infer_tensor, has_contents, to_raw
from enginehouse.core.errors import FailedPrecondition, InvalidArgument, NotFound
from enginehouse.serving.inference import Inference
from enginehouse.serving.open_inference import platform_of, tensor_metadata

_SERVICE = "inference.GRPCInferenceService"
_ANSWERS = {name: answer for name, (_request, answer) in methods(_SERVICE).items()}


@dataclass(frozen=True)
class OpenInferenceService:
    """The methods; `inference` asks the versions."""

    inference: Inference

    def handlers(self, callers: Callers) -> grpc.GenericRpcHandler:
        return callers.handlers(
            _SERVICE,
            {
                "ServerLive": self._live,
                "ServerReady": self._ready,
                "ServerMetadata": self._server,
                "ModelReady": self._model_ready,
                "ModelMetadata": self._model,
                "ModelInfer": self._infer,
            },
        )

    async def _live(self, _request: Message, _project: str) -> Message:
        return _ANSWERS["ServerLive"](live=True)

    async def _ready(self, _request: Message, _project: str) -> Message:
        return _ANSWERS["ServerReady"](ready=True)

    async def _server(self, _request: Message, _project: str) -> Message:
        return _ANSWERS["ServerMetadata"](name="enginehouse", version=__version__)

    async def _model_ready(self, request: Message, project: str) -> Message:
        """A version that is not there is told as not ready, as Triton does."""
        try:
            self.inference.version(target(project, request.name, request.version, field="name"))
        except (NotFound, FailedPrecondition):
            return _ANSWERS["ModelReady"](ready=False)
        return _ANSWERS["ModelReady"](ready=True)

    async def _model(self, request: Message, project: str) -> Message:
        version = self.inference.version(target(project, request.name, request.version, field="name"))
        signature = await self.inference.signature(version)
        return _ANSWERS["ModelMetadata"](
            name=version.name.model_id,
            versions=[version.name.version_id],
            platform=platform_of(version.framework),
            inputs=tensor_metadata(signature["inputs"]),
            outputs=tensor_metadata(signature["outputs"]),
        )

    async def _infer(self, request: Message, project: str) -> Message:
        inferred = await self.inference.infer(
            target(project, request.model_name, request.model_version, field="model_name"),
            _inputs(request),
            request.parameters["signature_name"].string_param if "signature_name" in request.parameters else "",
        )
        wanted = {each.name for each in request.outputs}
        outputs = [each for each in inferred.outputs if not wanted or each["name"] in wanted]
        name = inferred.version.name
        answer = _ANSWERS["ModelInfer"](model_name=name.model_id, model_version=name.version_id, id=request.id)
        # As they came: a client that sends bytes reads bytes. All outputs alike, as the protocol has it.
        is_raw = bool(request.raw_input_contents) or not all(map(has_contents, outputs))
        for tensor in outputs:
            told: dict[str, Any] = {key: tensor[key] for key in ("name", "datatype", "shape")}
            output = answer.outputs.add(**told)
            if is_raw:
                answer.raw_output_contents.append(to_raw(tensor))
            else:
                fill_contents(tensor, output.contents)
        return answer


def _inputs(request: Message) -> list[dict[str, Any]]:
    raws: list[bytes | None] = list(request.raw_input_contents)
    if raws and len(raws) != len(request.inputs):
        raise InvalidArgument(
            f"There are {len(raws)} raw contents for {len(request.inputs)} inputs; send one for each, or none.",
            field="raw_input_contents",
        )
    pairs = zip(request.inputs, raws or [None] * len(request.inputs), strict=True)
    return [from_infer_tensor(each, raw, f"inputs[{position}]") for position, (each, raw) in enumerate(pairs)]
