"""What one writes by hand: FastAPI, a pydantic body, a model call.

The fast models are called in the event loop, which is quicker than FastAPI's thread pool for them; the slow one in
the pool, as FastAPI's documentation says.
"""

import os
from collections.abc import AsyncIterator

import joblib
import numpy as np
import pandas as pd
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
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


async def stream(body: Rows) -> StreamingResponse:
    """A row's score for each digit, one after another, as server-sent events."""
    scores = model.decision_function(np.array(body.inputs))[0].tolist()

    async def iterate_events() -> AsyncIterator[str]:
        for score in scores:
            yield f"data: {score}\n\n"

    return StreamingResponse(iterate_events(), media_type="text/event-stream")


routes = {"rows": rows, "records": records, "sleep": sleep, "stream": stream}
app.post("/predict", response_model=None)(routes[os.environ["SCENARIO"]])
