"""The server inside the user's own FastAPI application."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

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
