"""One adapter per framework. `load` picks the adapter; only `adapters/X.py` imports framework X."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from enginehouse.modelserver import CUSTOM
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.errors import ModelLoadError

if TYPE_CHECKING:
    from enginehouse.modelserver.worker.link import Outside

_ADAPTERS = {
    "TENSORFLOW": ("tensorflow", "TensorFlowAdapter"),
    "SCIKIT_LEARN": ("sklearn", "SklearnAdapter"),
    "XGBOOST": ("xgboost", "XgboostAdapter"),
    "PYTORCH": ("pytorch", "PytorchAdapter"),
    "ONNX": ("onnx", "OnnxAdapter"),
}


def load(framework: str, directory: Path, outside: Outside | None = None) -> Adapter:
    """The adapter of `framework` with the model in `directory` loaded.

    Args:
        outside: the old runtime that it is loaded in; None for this process.

    Raises:
        ModelLoadError: the model cannot be loaded, or nobody knows the framework.
    """
    return loader(framework, outside)(directory)


def loader(framework: str, outside: Outside | None = None) -> Callable[[Path], Adapter]:
    """What loads a model's directory as `load` does, with the framework imported by now.

    Raises:
        ModelLoadError: nobody knows the framework.
    """
    if outside is not None:
        from enginehouse.modelserver.adapters.outside import load_outside

        return partial(load_outside, framework, outside=outside)
    if framework.startswith(CUSTOM):
        from enginehouse.modelserver.adapters.custom import CustomAdapter

        return partial(CustomAdapter.load, class_name=framework[len(CUSTOM) :])
    place = _ADAPTERS.get(framework)
    if place is None:
        raise ModelLoadError(f"Unknown framework {framework!r}; use one of {', '.join(_ADAPTERS)}.")
    module_name, class_name = place
    adapter: type[Adapter] = getattr(import_module(f"{__name__}.{module_name}"), class_name)
    return adapter.load
