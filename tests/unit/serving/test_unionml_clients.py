"""Clients that were written for UnionML's server."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlapp import App

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def digits() -> App:
    app = App("digits", target="target")
    app.data_reader(lambda: load_digits(as_frame=True).frame.head(300))
    app.model(lambda: LogisticRegression(max_iter=50))
    return app


@pytest.fixture(scope="module")
def trained(digits):
    return digits.train()


@pytest.mark.parametrize("path", ["/predict", "/predict/"])
@pytest.mark.parametrize("rows", [5, 300])
async def test_the_request_of_unionmls_documentation(digits, trained, serve, path: str, rows: int) -> None:
    """Whole rows, with the target, under `features`; the answer is a bare list."""
    sample = load_digits(as_frame=True).frame.sample(rows, random_state=42)
    async with serve(digits, trained) as client:
        response = await client.post(path, json={"features": sample.to_dict(orient="records")})
    assert response.status_code == 200
    expected = trained.estimator.predict(sample.drop(columns="target")).tolist()
    assert response.json() == expected


async def test_rows_without_the_target_and_health_work_too(digits, trained, serve) -> None:
    features = load_digits(as_frame=True).data.head(2)
    async with serve(digits, trained) as client:
        records = await client.post("/predict", json={"features": features.to_dict(orient="records")})
        rows = await client.post("/predict", json={"features": features.to_numpy().tolist()})
        assert (await client.get("/health")).status_code == 200
    assert records.json() == rows.json() == trained.estimator.predict(features).tolist()


async def test_a_wrong_row_is_a_problem_that_names_it(digits, trained, serve) -> None:
    async with serve(digits, trained) as client:
        response = await client.post("/predict", json={"features": [{"pixel_0_0": 1}]})
    assert response.status_code == 422
    assert response.json()["errors"][0]["row"] == 0


async def test_an_app_with_named_features_takes_these_out_of_the_row(serve) -> None:
    app = App("digits", target="target", features=["pixel_0_2", "pixel_0_3"])
    app.data_reader(lambda: load_digits(as_frame=True).frame.head(100))
    app.model(lambda: LogisticRegression(max_iter=50))
    async with serve(app) as client:
        whole = load_digits(as_frame=True).frame.head(3).to_dict(orient="records")
        response = await client.post("/predict", json={"features": whole})
        document = (await client.get("/openapi.json")).json()
    assert response.status_code == 200
    assert len(response.json()) == 3
    output = {**document["components"]["schemas"]["digits.Features"], "components": document["components"]}
    assert Draft202012Validator(output).is_valid(whole)
    assert not Draft202012Validator(output).is_valid([{"target": 1}])
