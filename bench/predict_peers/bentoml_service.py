"""BentoML on uvloop, without adaptive batching, which costs it a second process."""

from __future__ import annotations

import os
from typing import Any

import bentoml
import numpy as np
from bare_model import load


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Model:
    def __init__(self) -> None:
        self.model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])

    @bentoml.api
    async def predict(self, instances: list[list[float]]) -> dict[str, Any]:
        return {"predictions": self.model(np.asarray(instances, np.float32)).tolist()}
