"""An app whose feature_loader reads pictures: its example is of what a client sends, not of what the model sees."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlapp import App

pytestmark = pytest.mark.anyio
PICTURE = [[0, 255], [255, 0]]


def pictures(loader=None, **options) -> App:
    app = App("pictures", target="label")

    @app.data_reader
    def read() -> pd.DataFrame:
        pixels = np.random.default_rng(0).random((40, 4))
        return pd.DataFrame(pixels, columns=list("abcd")).assign(label=(pixels[:, 0] > 0.5).astype(int))

    app.model(LogisticRegression)

    def load(inputs) -> pd.DataFrame:
        pixels = np.asarray(inputs, dtype=float).reshape(len(inputs), 4) / 255
        return pd.DataFrame(pixels, columns=list("abcd"))

    app.feature_loader(**options)(loader or load)
    return app


async def test_the_declared_example_is_on_the_page_and_in_the_documentation_and_can_be_sent(serve) -> None:
    schema = {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}}
    app = pictures(example=[PICTURE], schema=schema)
    async with serve(app) as client:
        described = (await client.get("/model")).json()
        assert described["example"] == {"inputs": [PICTURE]}
        assert described["raw_inputs"]
        assert (await client.post("/predict", json=described["example"])).status_code == 200
        document = (await client.get("/openapi.json")).json()
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == {"inputs": [PICTURE]}
    assert document["components"]["schemas"]["pictures.Inputs"]["items"]["minItems"] == 2


async def test_a_picture_without_the_list_around_it_is_reported(serve) -> None:
    app = pictures(lambda inputs: np.asarray(inputs, dtype=float).reshape(len(inputs), -1) / 255, example=[PICTURE])
    app.data_parser(lambda data: (data[list("abcd")].to_numpy(), data["label"]))
    async with serve(app) as client:
        answer = await client.post("/predict", json={"inputs": PICTURE})
        assert (answer.status_code, answer.json()["detail"].partition(" converted the inputs to ")[2]) == (
            422,
            "rows of shape [2]; the model takes rows of shape [4]. inputs must be a list of rows, even for a "
            "single row",
        )


async def test_an_npy_body_has_to_be_of_the_examples_shape(serve) -> None:
    def npy(array) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    headers = {"content-type": "application/x-npy"}
    async with serve(pictures(example=[PICTURE])) as client:
        good = await client.post("/predict", content=npy(np.array([PICTURE, PICTURE])), headers=headers)
        assert len(good.json()["predictions"]) == 2
        wrong = await client.post("/predict", content=npy(np.zeros((2, 3))), headers=headers)
        assert wrong.status_code == 422
        assert "rows of shape (3,)" in wrong.json()["detail"]
    with_texts = App("texts", target="y")
    with_texts.data_reader(lambda: {"n": [1.0, 2.0] * 10, "y": [0, 1] * 10})
    with_texts.model(LogisticRegression)
    with_texts.feature_loader(example=["ab"])(lambda inputs: pd.DataFrame({"n": [float(len(each)) for each in inputs]}))
    async with serve(with_texts) as client:
        wrong = await client.post("/predict", content=npy(np.zeros((2, 3))), headers=headers)
        assert wrong.status_code == 422


async def test_an_example_is_recorded_where_the_loader_reads_what_the_model_sees(serve) -> None:
    app = pictures(lambda inputs: pd.DataFrame(inputs, columns=list("abcd")))
    async with serve(app) as client:
        described = (await client.get("/model")).json()
        assert (await client.post("/predict", json=described["example"])).status_code == 200


async def test_without_any_example_there_is_none_to_mislead(serve) -> None:
    async with serve(pictures()) as client:
        assert (await client.get("/model")).json()["example"] == {"inputs": None}
        assert (await client.get("/readyz")).status_code == 200
