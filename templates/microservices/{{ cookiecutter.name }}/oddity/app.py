import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest

from mlapp import App

app = App("oddity")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).data.head(limit)


@app.model
def build(n_estimators: int = 100) -> IsolationForest:
    return IsolationForest(n_estimators=n_estimators, random_state=0)


@app.predictor
def predict(model: IsolationForest, features: pd.DataFrame) -> list[float]:
    """How much each image differs from the training images, from 0 (similar) to 1."""
    return (-model.score_samples(features)).round(4).tolist()


@app.evaluator
def evaluate(model: IsolationForest, features: pd.DataFrame) -> dict[str, float]:
    return {"oddity": float(-model.score_samples(features).mean())}
