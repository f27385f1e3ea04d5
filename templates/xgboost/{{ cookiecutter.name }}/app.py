import pandas as pd
from sklearn.datasets import load_digits
from xgboost import XGBClassifier

from mlapp import App

app = App("{{ cookiecutter.name }}", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(n_estimators: int = 100, max_depth: int = 4, learning_rate: float = 0.3) -> XGBClassifier:
    return XGBClassifier(n_estimators=n_estimators, max_depth=max_depth, learning_rate=learning_rate)


@app.predictor
def predict(model: XGBClassifier, features: pd.DataFrame) -> list[int]:
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: XGBClassifier, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {"accuracy": model.score(features, target)}
