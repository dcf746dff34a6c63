"""PyTorch: `model.pt2`, an exported program (`torch.export.save`), or `model.pt`, TorchScript (`torch.jit.save`).

An exported program knows the dtypes and shapes of its inputs. TorchScript knows only their names: they are float32 of
any shape, unless `signature.json` beside the model says otherwise: `{"inputs": {"x": {"dtype": "int64", "shape":
[null, 4]}}}`. The rows are the first dimension of every input and output.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from enginehouse.modelserver.adapters.signature_target import DifferentiableSignatureTarget
from enginehouse.modelserver.adapters.signatures import DEFAULT_SIGNATURES, Signature, SignatureAdapter
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError, describe
from enginehouse.modelserver.explain.metadata import Metadata
from enginehouse.modelserver.explain.target import Target

PROGRAM_FILE, SCRIPT_FILE, SIGNATURE_FILE = "model.pt2", "model.pt", "signature.json"
_WORDS_LIMIT = 2000


class PytorchAdapter(SignatureAdapter):
    """A module with one signature; outputs are called as in its dictionary, else `output`, or `output_0` and on."""

    framework = f"PyTorch {torch.__version__}"
    data_errors = (RuntimeError, ValueError, IndexError)
    _module: Any
    _keys: Sequence[str]

    @classmethod
    def load(cls, directory: Path) -> PytorchAdapter:
        torch.set_num_threads(1)  # a served batch is too small for more
        path = next((p for name in (PROGRAM_FILE, SCRIPT_FILE) if (p := directory / name).is_file()), None)
        if path is None:
            raise ModelLoadError(f"Could not find either {PROGRAM_FILE} or {SCRIPT_FILE} in the model directory.")
        try:
            if path.name == PROGRAM_FILE:
                program = torch.export.load(path)
                return cls._of(program.module(), _exported_inputs(program), None)
            module = torch.jit.load(str(path), map_location="cpu").eval()
            inputs = _scripted_inputs(module, directory / SIGNATURE_FILE)
            known = all(spec.shape is not None for spec in inputs)
            return cls._of(module, inputs, None if known else _scripted_outputs(module))
        except ModelLoadError:
            raise
        except Exception as error:
            raise ModelLoadError(
                f"Unexpected error when loading the model: Could not load {path.name}: {_words(error)}"
            ) from error

    @classmethod
    def _of(cls, module: Any, inputs: Sequence[TensorSpec], names: list[str] | None) -> PytorchAdapter:
        """With a signature whose outputs are found out by a call, or are `names` where no instance can be made up."""

        def forward(*arrays: Any) -> dict[str, Any]:
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
            return {name: tensor.numpy() for name, tensor in _named(outputs).items()}

        if all(spec.shape is not None for spec in inputs):
            found = forward(*(spec.zeros() for spec in inputs))
            free = all(spec.shape and spec.shape[0] is None for spec in inputs)
            specs = [
                TensorSpec(name, name, array.dtype, (None if free else len(array), *array.shape[1:]))
                for name, array in found.items()
            ]
        else:
            specs = [TensorSpec(name, name, np.dtype(np.float32), None) for name in names or ["output"]]
        keys = [spec.alias for spec in specs]

        def call(*arrays: Any) -> list[Any]:
            outputs = forward(*arrays)
            return [outputs[key] for key in keys]

        adapter = cls({DEFAULT_SIGNATURES[0]: Signature.of(inputs, specs, call)})
        adapter._module, adapter._keys = module, keys
        return adapter

    def target(self, signature: str, metadata: Metadata, *, gradients: bool) -> Target:
        if not gradients:
            return super().target(signature, metadata, gradients=False)
        return DifferentiableSignatureTarget(
            self._signatures[signature], metadata, self.prepare, self.words, self._differentiate
        )

    def _differentiate(
        self, output: int, arrays: Sequence[Array], labels: Array, positions: Sequence[int]
    ) -> list[Array]:
        with torch.enable_grad():
            tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            asked = [tensors[position].requires_grad_() for position in positions]
            scores = _named(self._module(*tensors))[self._keys[output]].reshape(len(labels), -1)
            chosen = scores.gather(1, torch.from_numpy(labels)[:, None]).sum()
            found = torch.autograd.grad(chosen, asked, allow_unused=True)
        pairs = zip(found, asked, strict=True)
        return [np.zeros(tuple(x.shape)) if slope is None else slope.numpy() for slope, x in pairs]

    def words(self, error: Exception) -> str:
        return _words(error)


def _named(outputs: Any) -> dict[str, Any]:
    """The tensors that a module gives, by name."""
    if isinstance(outputs, torch.Tensor):
        return {"output": outputs}
    if isinstance(outputs, dict):
        return dict(outputs)
    return {f"output_{index}": tensor for index, tensor in enumerate(outputs)}


def _exported_inputs(program: Any) -> list[TensorSpec]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    for name in program.graph_signature.user_inputs:
        tensor = nodes[name].meta["val"]
        dims = tuple(dim if isinstance(dim, int) else None for dim in tensor.shape)
        specs.append(TensorSpec(name, name, _dtype(tensor.dtype), dims))
    return specs


def _scripted_inputs(module: Any, signature: Path) -> list[TensorSpec]:
    told = json.loads(signature.read_text())["inputs"] if signature.is_file() else {}
    specs = []
    for argument in module.forward.schema.arguments[1:]:
        spec = told.get(argument.name, {})
        shape = tuple(spec["shape"]) if "shape" in spec else None
        specs.append(TensorSpec(argument.name, argument.name, np.dtype(spec.get("dtype", "float32")), shape))
    return specs


def _scripted_outputs(module: Any) -> list[str]:
    returned = module.forward.schema.returns[0].type
    if returned.kind() == "TupleType":
        return [f"output_{index}" for index in range(len(returned.elements()))]
    if returned.kind() == "DictType":
        raise ModelLoadError(
            f"The module gives a dictionary: say the shapes of its inputs in {SIGNATURE_FILE}, so that a call can "
            "tell what is in it."
        )
    return ["output"]


def _dtype(dtype: torch.dtype) -> np.dtype[Any]:
    array: Any = torch.empty(0, dtype=dtype).numpy()
    found: np.dtype[Any] = array.dtype
    return found


def _words(error: Exception) -> str:
    """PyTorch's own words without the trace of the code that made the model."""
    lines = describe(error).splitlines()
    tail = [line for line in lines if "Error: " in line]
    return (tail[-1] if tail and lines[0].startswith("The following operation failed") else describe(error))[
        :_WORDS_LIMIT
    ]
