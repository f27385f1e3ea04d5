"""What one writes by hand: FastAPI, a pydantic body, a model call.

The fast models are called in the event loop, which is quicker than FastAPI's thread pool for them; the slow one in
the pool, as FastAPI's documentation says.
"""

import os

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["MODEL"])


class Rows(BaseModel):
    inputs: list[list[float]]


class Records(BaseModel):
    inputs: list[dict[str, float]]


class Predictions(BaseModel):
    predictions: list[int]


async def rows(body: Rows) -> Predictions:
    return Predictions(predictions=model.predict(np.array(body.inputs)).tolist())


async def records(body: Records) -> Predictions:
    return Predictions(predictions=model.predict(pd.DataFrame(body.inputs)).tolist())


def sleep(body: Rows) -> Predictions:
    return Predictions(predictions=model.predict(np.array(body.inputs)).tolist())


app.post("/predict")({"rows": rows, "records": records, "sleep": sleep}[os.environ["SCENARIO"]])
