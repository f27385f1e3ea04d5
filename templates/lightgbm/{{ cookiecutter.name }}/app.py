import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.datasets import load_digits

from mlapp import App

app = App("{{ cookiecutter.name }}", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model
def build(n_estimators: int = 100, num_leaves: int = 15, learning_rate: float = 0.1) -> LGBMClassifier:
    return LGBMClassifier(n_estimators=n_estimators, num_leaves=num_leaves, learning_rate=learning_rate, verbose=-1)


@app.predictor
def predict(model: LGBMClassifier, features: pd.DataFrame) -> list[int]:
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: LGBMClassifier, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {"accuracy": model.score(features, target)}
