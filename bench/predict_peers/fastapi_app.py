"""FastAPI, without what costs: no validation by pydantic, no thread per request. Started by uvicorn, 2 workers."""

import os

import numpy as np
import orjson
from bare_model import load
from fastapi import FastAPI, Request, Response

model = load(os.environ["MODEL_FRAMEWORK"], os.environ["MODEL_DIRECTORY"])
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    instances = np.asarray(orjson.loads(await request.body())["instances"], np.float32)
    answer = orjson.dumps({"predictions": model(instances).tolist()})
    return Response(answer, media_type="application/json")
