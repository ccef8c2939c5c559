# /// script
# dependencies = []
# ///
"""A FastAPI service as people write it by hand: pydantic rows, a DataFrame, predict. Runs in our own environment."""

import json
import os
from typing import Any

import joblib
import numpy as np
import pandas as pd
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

NAMES = [f"f{place}" for place in range(8)]


def opened(path: str) -> Any:
    """Return the pipeline as if it had been fitted on a frame, so that it does not warn at every call."""
    pipeline = joblib.load(path)
    first = pipeline.steps[0][1] if hasattr(pipeline, "steps") else pipeline
    first.feature_names_in_ = np.array(NAMES, dtype=object)
    return pipeline


class Row(BaseModel):
    """One row."""

    f0: float
    f1: float
    f2: float
    f3: float
    f4: float
    f5: float
    f6: float
    f7: float


class Rows(BaseModel):
    """What is asked."""

    instances: list[Row]


app = FastAPI()
models = {name: opened(path) for name, path in json.loads(os.environ["PEER_MODELS"]).items()}


@app.post("/predict/{name}")
def predict(name: str, rows: Rows) -> dict[str, list[int]]:
    """Answer the rows."""
    frame = pd.DataFrame([row.model_dump() for row in rows.instances])
    return {"predictions": models[name].predict(frame).tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PEER_PORT"]), log_level="warning", access_log=False)
