"""Requests whose instances are tensors in bytes: the same answers as to JSON, in the same batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.adapters.signatures import Signature, SignatureAdapter
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.batcher import Batcher
from enginehouse.modelserver.frames import pack_tensors


class Model(SignatureAdapter):
    """Doubles images; `add` takes two columns."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []
        spec = TensorSpec
        image = spec("x", "x", np.dtype("f4"), (None, 2, 2))
        column = (None,)
        super().__init__(
            {
                "serving_default": Signature.of([image], [image], self._double),
                "add": Signature.of(
                    [spec("a", "a", np.dtype("f4"), column), spec("b", "b", np.dtype("i4"), column)],
                    [spec("c", "c", np.dtype("f4"), column)],
                    lambda a, b: [a + b],
                ),
            }
        )

    @classmethod
    def load(cls, directory: Path) -> Adapter:
        raise NotImplementedError

    def _double(self, x: Any) -> list[Any]:
        self.calls.append(x.shape)
        return [x * 2]


def packed(signature: str = "", /, **tensors: np.ndarray[Any, Any]) -> bytes:
    return pack_tensors(
        [
            ({"name": name, "dtype": each.dtype.str, "shape": list(each.shape)}, each.tobytes())
            for name, each in tensors.items()
        ],
        signature,
    )


def answers(model: Model, *bodies: bytes) -> list[Any]:
    batcher = Batcher(model)
    parts = batcher.answer(batcher.open(enumerate(bodies)))
    found = {asker: json.loads(body) for _, answers in parts for asker, _, body in answers}
    return [found[position] for position in range(len(bodies))]


def test_tensors_share_a_call_with_json() -> None:
    model = Model()
    image = np.arange(8, dtype="<f4").reshape(2, 2, 2)
    image[0, 0, 0] = np.nan
    as_json = json.dumps({"instances": [[[1, 2], [3, 4]]]}).encode()
    doubled = [[[None, 2.0], [4.0, 6.0]], [[8.0, 10.0], [12.0, 14.0]]]
    assert answers(model, packed(x=image), as_json, packed(x=image[:0])) == [
        {"predictions": doubled},
        {"predictions": [[[2.0, 4.0], [6.0, 8.0]]]},
        {"predictions": []},
    ]
    assert model.calls == [(3, 2, 2)]


def test_several_tensors_by_name() -> None:
    columns = {"b": np.array([1, 2], "<i8"), "a": np.array([0.5, 1.5], "<f2")}
    assert answers(Model(), packed("add", **columns)) == [{"predictions": [1.5, 3.5]}]


def test_what_does_not_fit_is_told_as_for_json() -> None:
    wrong_shape, wrong_type = np.zeros((1, 3), "<f4"), {"a": np.zeros(1, "<f4"), "b": np.array([0.5], "<f4")}
    as_json = json.dumps({"instances": [{"a": 0.0, "b": 0.5}], "signature_name": "add"}).encode()
    shape, kind, same = answers(Model(), packed(x=wrong_shape), packed("add", **wrong_type), as_json)
    assert "has the shape (3), expected (2, 2)" in shape["error"]
    assert kind == same and "Expected int32, got 0.5 of type 'float'" in kind["error"]
