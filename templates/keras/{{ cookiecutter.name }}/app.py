import os

import pandas as pd
from sklearn.datasets import load_digits

from mlapp import App

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported
import keras

app = App("{{ cookiecutter.name }}", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(hidden: int = 128) -> keras.Model:
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((64,)), dense(hidden, activation="relu"), dense(10, activation="softmax")])
