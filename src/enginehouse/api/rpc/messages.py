"""The messages and services of `protos/`, made from their descriptors when the module is imported.

They live in a pool of their own, so that they never meet those of TensorFlow or Triton in one process.
`make protos` compiles the descriptors.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Message = Any
"""Generated: mypy can't know the fields."""


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    data = files("enginehouse.api.rpc").joinpath("protos/descriptors.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    return pool


_POOL = _load()


def message(name: str) -> Any:
    """The class of a message, such as "tensorflow.TensorProto"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def methods(service: str) -> dict[str, tuple[Any, Any]]:
    """Request and answer class of a service's methods, by their names."""
    return {
        method.name: (message(method.input_type.full_name), message(method.output_type.full_name))
        for method in _POOL.FindServiceByName(service).methods
    }
