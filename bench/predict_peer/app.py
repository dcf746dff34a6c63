"""The peer: how a scikit-learn model is usually put behind HTTP. Started with `uvicorn app:app`, MODEL_PATH set."""

import os
from typing import Any

import joblib
from fastapi import FastAPI
from pydantic import BaseModel

model = joblib.load(os.environ["MODEL_PATH"])
app = FastAPI()


class PredictRequest(BaseModel):
    instances: list[list[float]]


@app.post("/predict")
def predict(request: PredictRequest) -> dict[str, Any]:
    return {"predictions": model.predict(request.instances).tolist()}
