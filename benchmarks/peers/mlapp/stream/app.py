"""Digits, with a predictor that yields a row's score for each digit, one after another."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("digits", target="target")


@app.data_reader
def read() -> pd.DataFrame:
    return load_digits(as_frame=True).frame


@app.model
def build() -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=1000)


@app.predictor
def predict(model: LogisticRegression, features: np.ndarray) -> Iterator[float]:
    yield from model.decision_function(features)[0].tolist()
