"""Calls both models concurrently and combines their answers. The gateway is an app too: versions, tests, metrics."""

import asyncio
import json
import os
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_digits

from mlapp import App

app = App("gateway", target="target")

DIGITS = app.remote(os.environ.get("DIGITS_URL", "http://127.0.0.1:8001"))
ODDITY = app.remote(os.environ.get("ODDITY_URL", "http://127.0.0.1:8002"))

Rule = dict[str, float]


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(limit_of_oddity: float = 0.6) -> Rule:
    return {"limit_of_oddity": limit_of_oddity}


@app.trainer
def train(model: Rule, features: pd.DataFrame, target: pd.Series) -> Rule:
    return model  # nothing to fit: only the evaluation matters


@app.saver
def save(model: Rule, folder: Path) -> None:
    (folder / "rule.json").write_text(json.dumps(model))


@app.loader
def load(folder: Path) -> Rule:
    return json.loads((folder / "rule.json").read_text())


@app.predictor
async def predict(model: Rule, features: pd.DataFrame) -> list[dict]:
    digits, oddities = await asyncio.gather(DIGITS.predict_async(features), ODDITY.predict_async(features))
    return [
        {"digit": digit if oddity <= model["limit_of_oddity"] else None, "oddity": oddity}
        for digit, oddity in zip(digits, oddities, strict=True)
    ]


@app.evaluator
def evaluate(model: Rule, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    """Accuracy of the whole system, through the running services."""
    found = [answer["digit"] for answer in asyncio.run(predict(model, features))]
    read = [(digit, truth) for digit, truth in zip(found, target, strict=True) if digit is not None]
    right = sum(digit == truth for digit, truth in read)
    return {"accuracy": right / max(len(read), 1), "refused": 1 - len(read) / len(found)}
