import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from mlapp import App

app = App("{{ cookiecutter.name }}", target="target")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return load_digits(as_frame=True).frame.head(limit)


@app.model(format="onnx")
def build(n_estimators: int = 100, random_state: int = 0) -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators, random_state=random_state)


@app.predictor
def predict(model: RandomForestClassifier, features: pd.DataFrame) -> list[int]:
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: RandomForestClassifier, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {"accuracy": model.score(features, target)}
