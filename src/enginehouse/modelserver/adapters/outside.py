"""Models in an old runtime: TensorFlow, scikit-learn, XGBoost and custom routines over a worker there.

What lies between JSON and arrays is the same as for models in this process; only the call goes to `worker.link`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from enginehouse.modelserver import CUSTOM
from enginehouse.modelserver.adapters.base import Adapter
from enginehouse.modelserver.adapters.boosters import BoosterAdapter
from enginehouse.modelserver.adapters.custom import CustomAdapter
from enginehouse.modelserver.adapters.estimators import EstimatorAdapter
from enginehouse.modelserver.adapters.signatures import Signature, SignatureAdapter
from enginehouse.modelserver.adapters.tensors import TensorSpec
from enginehouse.modelserver.codecs import Array
from enginehouse.modelserver.errors import ModelLoadError
from enginehouse.modelserver.worker.link import Outside, WorkerError, WorkerLink


def load_outside(framework: str, directory: Path, outside: Outside) -> Adapter:
    """The adapter over a worker that has loaded the model in `directory`.

    Raises:
        ModelLoadError: the model cannot be loaded.
    """
    link = WorkerLink(outside, framework, directory)
    if framework.startswith(CUSTOM):
        return CustomAdapter(_Routine(link), framework[len(CUSTOM) :])
    kinds: dict[str, type[_TensorFlow | _Estimator | _Booster]] = {
        "TENSORFLOW": _TensorFlow,
        "SCIKIT_LEARN": _Estimator,
        "XGBOOST": _Booster,
    }
    return kinds[framework](link)


_FRAME = "frame "
"""Before the name of an estimator's method: called with a data frame."""


class _MadeByLoadOutside(Adapter):
    @classmethod
    def load(cls, directory: Path) -> Adapter:
        raise ModelLoadError("a model in an old runtime is loaded there, by load_outside")


class _TensorFlow(_MadeByLoadOutside, SignatureAdapter):
    def __init__(self, link: WorkerLink) -> None:
        self.framework = f"TensorFlow {link.facts['version']}"
        super().__init__(
            {
                name: Signature.of(
                    [_spec(*each) for each in sides["inputs"]],
                    [_spec(*each) for each in sides["outputs"]],
                    partial(link.call, name),
                )
                for name, sides in sorted(link.facts["signatures"].items())
            }
        )

    def blames_data(self, error: Exception) -> bool:
        return isinstance(error, WorkerError) and error.blames_data


def _spec(alias: str, tensor_name: str, dtype: str, shape: list[int | None] | None) -> TensorSpec:
    try:
        kind = np.dtype(object if dtype == "string" else dtype)
    except TypeError:
        raise ModelLoadError(
            f"The input or output {alias} is of the type {dtype}, which can't be served from an old runtime."
        ) from None
    return TensorSpec(alias, tensor_name, kind, None if shape is None else tuple(shape))


class _Estimator(_MadeByLoadOutside, EstimatorAdapter):
    has_frames = True

    def __init__(self, link: WorkerLink) -> None:
        super().__init__(*_of_table("scikit-learn", link))
        self._link = link

    def predict(self, table: Array, *, as_frame: bool) -> Any:
        return self._link.call(_FRAME + "predict" if as_frame else "predict", table)[0]

    def score(self, table: Array) -> Any:
        return self._link.call(_FRAME + self._explained if self._needs_frame else self._explained, table)[0]


class _Booster(_MadeByLoadOutside, BoosterAdapter):
    def __init__(self, link: WorkerLink) -> None:
        super().__init__(*_of_table("xgboost", link))
        self._link = link

    def predict(self, table: Array) -> Array:
        return np.asarray(self._link.call("predict", table)[0])

    def score(self, table: Array) -> Any:
        return self._link.call(self._explained, table)[0]


def _of_table(library: str, link: WorkerLink) -> tuple[str, Any, Any, str, list[str]]:
    """What a `TableAdapter` is made of."""
    facts = link.facts
    names = (facts[name] for name in ("n_features", "features", "explained", "labels"))
    return (f"{library} {facts['version']}", *names)


class _Routine:
    """A custom prediction routine over there."""

    def __init__(self, link: WorkerLink) -> None:
        self._link = link

    def predict(self, instances: list[Any], **kwargs: Any) -> Any:
        return self._link.call("predict", [instances, kwargs])[0]
