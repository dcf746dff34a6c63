"""`explanation_metadata.json` beside the model: which inputs are features, their baselines, the output.

The form is that of the original's explainability SDK. The file is optional here: without it every input is a feature,
baselines are zero (empty text), and the output is the one that looks like scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginehouse.modelserver.errors import ModelLoadError, describe

FILE = "explanation_metadata.json"
IDENTITY, BAG_OF_FEATURES, INDICATOR = "identity", "bag_of_features", "indicator"
COMBINED_EMBEDDING, CONCAT_EMBEDDING = "combined_embedding", "concat_embedding"
_ENCODINGS = (IDENTITY, BAG_OF_FEATURES, INDICATOR, COMBINED_EMBEDDING, CONCAT_EMBEDDING)
_NAMED_ENCODINGS = (BAG_OF_FEATURES, INDICATOR)
_ENCODED = (COMBINED_EMBEDDING, CONCAT_EMBEDDING)


@dataclass(frozen=True)
class InputMetadata:
    """One feature input.

    Attributes:
        name: what the answer calls it.
        tensor: name of the input's tensor; "" to go by `name`.
        encoded_tensor: the tensor that attributions are computed for, where it is not the input itself.
        baselines: one value per baseline, each for one instance; empty for the default.
        feature_names: what the elements of the last dimension are called, for bags of features and indicators.
        modality: "image" for pictures.
        visualization: how attributions of an image are drawn.
        domain: `min` and `max` of an image's numbers.
    """

    name: str
    tensor: str = ""
    encoded_tensor: str = ""
    baselines: Sequence[Any] = ()
    encoding: str = IDENTITY
    feature_names: Sequence[str] = ()
    modality: str = ""
    visualization: dict[str, Any] = field(default_factory=dict)
    domain: dict[str, float] = field(default_factory=dict)

    @property
    def explained_tensor(self) -> str:
        """The tensor that attributions are for."""
        return self.encoded_tensor or self.tensor


@dataclass(frozen=True)
class OutputMetadata:
    """The output that is explained; `label_names` by index."""

    name: str
    tensor: str
    label_names: Sequence[str] = ()


@dataclass(frozen=True)
class Metadata:
    """The file; `inputs` empty and `output` None for what it does not say."""

    inputs: tuple[InputMetadata, ...] = ()
    output: OutputMetadata | None = None

    @classmethod
    def load(cls, directory: Path) -> Metadata:
        """What the file in a model's directory says; nothing without a file.

        Raises:
            ModelLoadError: naming the field that is wrong.
        """
        path = directory / FILE
        if not path.is_file():
            return cls()
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _wrong("", f"it is not JSON: {describe(error)}") from None
        if not isinstance(told, dict):
            raise _wrong("", "it must hold an object")
        inputs = tuple(_input(name, value) for name, value in _objects(told, "inputs").items())
        outputs = [_output(name, value) for name, value in _objects(told, "outputs").items()]
        if len(outputs) > 1:
            raise _wrong("outputs", f"exactly one output can be explained, there are {[o.name for o in outputs]}")
        return cls(inputs, outputs[0] if outputs else None)


def _wrong(field_path: str, words: str) -> ModelLoadError:
    where = f"{field_path} in {FILE}" if field_path else FILE
    return ModelLoadError(f"Bad explanation metadata: {where}: {words}.")


def _objects(told: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    value = told.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise _wrong(key, "it must hold an object for each name")
    return value


def _input(name: str, told: dict[str, Any]) -> InputMetadata:
    at = f"inputs.{name}"
    encoding = str(told.get("encoding") or IDENTITY).lower()
    if encoding not in _ENCODINGS:
        raise _wrong(f"{at}.encoding", f"{encoding!r} is not one of {', '.join(_ENCODINGS)}")
    names = told.get("index_feature_mapping") or []
    if not isinstance(names, list):
        raise _wrong(f"{at}.index_feature_mapping", "it must be a list of names")
    if encoding in _NAMED_ENCODINGS and not names:
        raise _wrong(f"{at}.index_feature_mapping", f"the field is required for the encoding {encoding}")
    encoded = str(told.get("encoded_tensor_name") or "")
    if encoding in _ENCODED and not encoded:
        raise _wrong(f"{at}.encoded_tensor_name", f"the field is required for the encoding {encoding}")
    baselines = told.get("encoded_baselines" if encoded else "input_baselines") or []
    if not isinstance(baselines, list):
        raise _wrong(f"{at}.input_baselines", "it must be a list with one value per baseline")
    visualization, domain = told.get("visualization") or {}, told.get("domain") or {}
    if not isinstance(visualization, dict) or not isinstance(domain, dict):
        raise _wrong(at, "visualization and domain must be objects")
    return InputMetadata(
        name=name,
        tensor=str(told.get("input_tensor_name") or ""),
        encoded_tensor=encoded,
        baselines=baselines,
        encoding=encoding,
        feature_names=[str(each) for each in names],
        modality=str(told.get("modality") or "").lower(),
        visualization=visualization,
        domain=domain,
    )


def _output(name: str, told: dict[str, Any]) -> OutputMetadata:
    labels = told.get("index_name_mapping") or []
    if not isinstance(labels, list):
        raise _wrong(f"outputs.{name}.index_name_mapping", "it must be a list of names")
    return OutputMetadata(name, str(told.get("output_tensor_name") or ""), [str(label) for label in labels])
