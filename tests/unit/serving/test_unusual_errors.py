"""Errors that are no ordinary `Exception` of a predictor, or that end by themselves: no request waits for ever."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mlapp import App
from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.decoding.media_types import decode_npy_body
from mlapp.serving.inference.version_watcher import VersionWatcher
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError
from mlapp.store import open_store
from mlapp.store.storage import RequestError

pytestmark = pytest.mark.anyio


def predict_or_cancel(model, features: np.ndarray):
    """As a predictor with an event loop of its own, in which a task was canceled."""
    if (features == 113).any():
        raise asyncio.CancelledError("secret")
    return features[:, 0].tolist()


def make_app(numbers: App, predict) -> App:
    app = App("other", target="y")
    app.stages |= {role: stage for role, stage in numbers.stages.items() if role != "predictor"}
    app.predictor()(predict)
    return app


async def test_a_predictor_with_a_canceled_task_fails_its_own_request_only(numbers, serve, caplog):
    async with serve(make_app(numbers[0], predict_or_cancel), timeout=5) as client:
        for value, status in ((1, 200), (113, 500), (2, 200), (113, 500), (3, 200)):
            answer = await client.post("/predict", json=[[value, 0]])
            assert answer.status_code == status
            assert "secret" not in answer.text
    assert "raised CancelledError: secret" in caplog.text


async def test_a_stream_with_a_canceled_task_fails_its_own_request_only(numbers, serve):
    def predict_words(model, features: np.ndarray):
        yield predict_or_cancel(model, features)

    async with serve(make_app(numbers[0], predict_words), timeout=5) as client:
        for value, status in ((1, 200), (113, 500), (2, 200)):
            assert (await client.post("/predict", json=[[value, 0]])).status_code == status


async def test_an_on_predict_with_a_canceled_task_leaves_the_answers(numbers, serve):
    app = make_app(numbers[0], lambda model, features: [0.0] * len(features))

    @app.on_predict
    def fail(model, features, predictions) -> None:
        raise asyncio.CancelledError("secret")

    async with serve(app, timeout=5) as client:
        for _ in range(3):
            assert (await client.post("/predict", json=[[1, 0]])).status_code == 200


def test_a_body_that_needs_too_much_memory_is_no_damaged_body(monkeypatch):
    def load_array(*arguments, **options):
        raise MemoryError("Unable to allocate 8 EiB")

    monkeypatch.setattr(np, "load", load_array)
    with pytest.raises(HttpError) as refused:
        decode_npy_body(b"", Budget(Serve(), 60))
    assert (refused.value.status, refused.value.detail) == (413, "The body needs too much memory.")


async def test_a_store_that_fails_during_a_download_is_tried_again(numbers, tmp_path, monkeypatch, caplog):
    app = make_app(numbers[0], lambda model, features: [0.0] * len(features))
    app.saver(lambda model, path: (path / "sums").write_text(""))
    app.loader(lambda path: numbers[1].estimator)
    trained = app.train()
    store = open_store(".", tmp_path)
    store.promote(app.name, store.put(trained).version, "production")
    application = create_asgi(app, model="production", store=store, settings=Serve(refresh=0))
    await application.start_models()
    endpoint = application.endpoints[0]
    watcher = VersionWatcher(endpoint, store, "production")
    store.promote(app.name, store.put(trained).version, "production")
    with monkeypatch.context() as away:

        def fail(*arguments):
            raise RequestError("The model store cannot be reached.", "Check the network.")

        away.setattr(store, "get", fail)
        await watcher.switch_if_moved()
    assert endpoint.current.version == "1"
    assert "The model store cannot be reached." in caplog.text
    await watcher.switch_if_moved()
    assert endpoint.current.version == "2"
    await application.close_models()
