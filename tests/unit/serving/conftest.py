"""Apps that need no framework (the model is a few lines of Python), and their server in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.config import Serve
from mlapp.serving import create_asgi

ROWS = 40


class Sums:
    """Predicts the sum of each row's numbers."""

    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return np.asarray(features, dtype=float).sum(axis=1)


def numbers_app(name: str = "numbers") -> App:
    """Two columns of floats; predicts their sum."""
    app = App(name, target="y")

    @app.data_reader
    def read() -> pd.DataFrame:
        table = pd.DataFrame({"a": np.arange(ROWS, dtype=float), "b": 0.5})
        return table.assign(y=table["a"] > 10)

    app.model(Sums)
    return app


def people_app() -> App:
    """Columns of every type, some with missing values; predicts a text."""
    app = App("people", target="y")

    @app.data_reader
    def read() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "age": range(ROWS),
                "income": [None if row == 5 else row * 1.5 for row in range(ROWS)],
                "city": pd.Categorical([["Bern", "Rome"][row % 2] for row in range(ROWS)]),
                "vip": [row % 3 == 0 for row in range(ROWS)],
                "note": [f"n{row}" for row in range(ROWS)],
                "y": [row % 2 for row in range(ROWS)],
            }
        )

    app.model(Sums)

    @app.predictor
    def predict(model, features: pd.DataFrame) -> list[str]:
        return [f"{row.city} {row.age} {row.vip} {row.income}" for row in features.itertuples()]

    return app


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def numbers() -> tuple[App, Any]:
    app = numbers_app()
    return app, app.train()


@pytest.fixture(scope="session")
def people() -> tuple[App, Any]:
    app = people_app()
    return app, app.train()


@contextlib.asynccontextmanager
async def serving(app: App, trained: Any = None, api: Any = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app's server, in this process. The machine may be busy for longer than the default timeout."""
    settings.setdefault("access_log", False)
    settings.setdefault("timeout", 250.0)
    application = create_asgi(app, model=trained or app.train(), settings=Serve(**settings), api=api)
    await application.start_models()
    transport = httpx.ASGITransport(application, raise_app_exceptions=True)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            client.application = application  # type: ignore[attr-defined]
            yield client
    finally:
        await application.close_models()


@pytest.fixture
def serve() -> Callable[..., Any]:
    return serving
