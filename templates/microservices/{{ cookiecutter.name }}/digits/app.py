import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("digits", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(C: float = 1.0, max_iter: int = 1000) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=max_iter)


@app.predictor
def predict(model: LogisticRegression, features: pd.DataFrame) -> list[int]:
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: LogisticRegression, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {"accuracy": model.score(features, target)}
