import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("{{ cookiecutter.name }}", target="species")

COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


@app.data_reader
def read() -> pd.DataFrame:
    data = load_iris()
    table = pd.DataFrame(data.data, columns=COLUMNS)
    return table.assign(species=data.target_names[data.target])


@app.model
def build(C: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=1000)


@app.predictor
def predict(model: LogisticRegression, features: pd.DataFrame) -> list[str]:
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: LogisticRegression, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {"accuracy": model.score(features, target)}
