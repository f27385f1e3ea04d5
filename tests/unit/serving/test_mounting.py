"""The server inside the user's own FastAPI application."""

from __future__ import annotations

import httpx
import pandas as pd
import pytest
from fastapi import FastAPI
from sklearn.linear_model import LinearRegression

from mlapp import App
from mlapp.serving import create_asgi

pytestmark = pytest.mark.anyio


async def test_it_can_be_mounted_and_loads_its_model_by_itself(numbers) -> None:
    app, trained = numbers
    api = FastAPI()
    api.get("/mine")(lambda: "mine")
    api.mount("/numbers", create_asgi(app, model=trained))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        assert (await client.get("/mine")).json() == "mine"
        answer = await client.post("/numbers/predict", json={"inputs": [{"a": 1, "b": 2}]})
        assert answer.json()["predictions"] == [3.0]
        assert (await client.get("/numbers/readyz")).status_code == 200
        assert "/predict" in (await client.get("/numbers/openapi.json")).json()["paths"]


async def test_an_app_that_mounts_itself_can_still_be_trained(tmp_path, monkeypatch) -> None:
    """`create_asgi(app)` in app.py, for `uvicorn app:api`: the server loads the model, and not the import."""
    monkeypatch.chdir(tmp_path)
    app = App("numbers", target="y")
    app.data_reader(lambda: pd.DataFrame({"a": [1.0, 2.0] * 5, "b": 2.0, "y": [3.0, 4.0] * 5}))
    app.model(LinearRegression)
    api = FastAPI()
    api.mount("/numbers", create_asgi(app))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
        early = await client.post("/numbers/predict", json={"inputs": [{"a": 1, "b": 2}]})
        assert early.status_code == 503
        assert "no version" in early.json()["detail"]
        assert (await client.get("/numbers/livez")).status_code == 200
        app.train()
        app.save()
        answer = await client.post("/numbers/predict", json={"inputs": [{"a": 1, "b": 2}]})
        assert answer.json()["version"] == "1"


async def test_a_server_without_a_model_ends_at_its_start_with_the_reason(numbers, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message) -> None:
        sent.append(message)

    await create_asgi(numbers[0])({"type": "lifespan"}, receive, send)
    [message] = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "numbers" in message["message"]
