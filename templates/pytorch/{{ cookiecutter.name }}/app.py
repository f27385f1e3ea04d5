import pandas as pd
from sklearn.datasets import load_digits
from torch import nn

from mlapp import App

app = App("{{ cookiecutter.name }}", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(hidden: int = 128) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
