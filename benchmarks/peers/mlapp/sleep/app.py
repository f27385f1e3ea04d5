"""Digits on a pretended device: 5 ms a batch whatever its size, one batch at a time."""

import threading
import time

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlapp import App

device = threading.Lock()
app = App("digits", target="target")


@app.data_reader
def read() -> pd.DataFrame:
    return load_digits(as_frame=True).frame


@app.model
def build() -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=1000)


@app.predictor
def predict(model: LogisticRegression, features: np.ndarray) -> list[int]:
    with device:
        time.sleep(0.005)
        return model.predict(features).tolist()
