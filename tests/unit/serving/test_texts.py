"""A column of texts, for a model that begins with a vectorizer."""

from __future__ import annotations

import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mlapp import App

pytestmark = pytest.mark.anyio
TEXTS = ["I love it", "Great value", "Works well", "I hate it", "Broke at once", "Waste of money"]


def reviews() -> App:
    app = App("reviews", target="liked", features=["text"])

    @app.data_reader
    def read() -> pd.DataFrame:
        liked = [True, True, True, False, False, False]
        return pd.DataFrame({"text": TEXTS * 5, "stars": 3, "liked": liked * 5})

    app.model(lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()))
    return app


async def test_a_model_of_texts_trains_serves_and_takes_plain_texts(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = reviews()
    trained = app.train()
    assert trained.metrics["test"]["accuracy"] == 1.0
    app.save()
    assert app.load().predict(["I hate it"]).tolist() == [False]
    async with serve(app, trained) as client:
        for body in (
            {"inputs": ["I love it", "Waste of money"]},
            ["I love it", "Waste of money"],
            {"inputs": [{"text": "I love it"}, {"text": "Waste of money"}]},
            {"inputs": [["I love it"], ["Waste of money"]]},
            {"inputs": {"text": ["I love it", "Waste of money"]}},
        ):
            response = await client.post("/predict", json=body)
            assert response.json()["predictions"] == [True, False], response.text
        wrong = await client.post("/predict", json={"inputs": ["I love it", 3]})
        assert wrong.status_code == 422
        assert "column 'text', row 1: 3 is not a string" in wrong.json()["detail"]


async def test_plain_values_of_several_columns_are_refused(serve, numbers) -> None:
    async with serve(*numbers) as client:
        response = await client.post("/predict", json={"inputs": [1, 2]})
    assert response.status_code == 422
