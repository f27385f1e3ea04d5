"""Errors that are no ordinary `Exception` of a predictor, or that end by themselves: no request waits for ever."""

from __future__ import annotations

import asyncio
import sys

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


ENDS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]
"""Errors that end a program, a generator or a task, if nothing catches them."""
ONE_ANSWER = {"accept": "application/json"}


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("kind", ["sync", "async", "later", "generator"])
async def test_a_predictor_that_ends_the_program_fails_its_own_request_only(numbers, serve, caplog, kind, error):
    def predict(model, features: np.ndarray) -> list[float]:
        if (features == 113).any():
            raise error("secret")
        return features[:, 0].tolist()

    async def predict_async(model, features: np.ndarray) -> list[float]:
        await asyncio.sleep(0)
        return predict(model, features)

    class Sums:
        """A result whose values are computed when the server lists them."""

        def __init__(self, features: np.ndarray) -> None:
            self.features = features

        def __array__(self, *arguments: object, **options: object) -> np.ndarray:
            return np.array(predict(None, self.features))

    def predict_later(model, features: np.ndarray) -> Sums:
        return Sums(features)

    async def predict_stream(model, features: np.ndarray):
        yield "word"
        yield predict(model, features)

    kinds = {"sync": predict, "async": predict_async, "later": predict_later, "generator": predict_stream}
    async with serve(make_app(numbers[0], kinds[kind]), timeout=5) as client:
        for value, status in ((1, 200), (113, 500), (2, 200), (113, 500), (3, 200)):
            answer = await client.post("/predict", json=[[value, 0]], headers=ONE_ANSWER)
            assert answer.status_code == status
            assert "secret" not in answer.text
        waiting = [client.post("/predict", json=[[value, 0]], headers=ONE_ANSWER) for value in (113, 1, 113, 2)]
        answers = [answer.status_code for answer in await asyncio.gather(*waiting)]
    is_call_failed = sys.version_info < (3, 11) and kind == "async" and error is asyncio.CancelledError
    assert answers == [500] * 4 if is_call_failed else [500, 200, 500, 200]
    assert f"raised {error.__name__}" in caplog.text


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("role", ["feature_loader", "feature_transformer", "on_predict"])
async def test_another_function_that_ends_the_program_fails_its_own_request_only(numbers, serve, caplog, role, error):
    app = make_app(numbers[0], lambda model, features: [0.0] * len(features))

    def load(inputs) -> np.ndarray:
        if role == "feature_loader" and inputs == [[113, 0]]:
            raise error
        return np.asarray(inputs, float)

    def transform(features: np.ndarray) -> np.ndarray:
        if role == "feature_transformer" and (features == 113).any():
            raise error
        return features

    def note(model, features, predictions) -> None:
        if role == "on_predict":
            raise error

    app.feature_loader(load)
    app.feature_transformer(transform)
    app.on_predict(note)
    async with serve(app, timeout=5) as client:
        for value in (1, 113, 2, 113, 3):
            answer = await client.post("/predict", json={"inputs": [[value, 0]]})
            assert answer.status_code == (500 if value == 113 and role != "on_predict" else 200)
    assert "raised" in caplog.text
    assert error.__name__ in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_a_stream_that_ends_the_program_when_it_is_closed_leaves_its_answer(numbers, serve, caplog, error):
    async def predict(model, features: np.ndarray):
        try:
            while features[0, 0] == 113:
                yield "word" * 1000
        finally:
            if features[0, 0] == 113:
                raise error

    async with serve(make_app(numbers[0], predict), timeout=5, max_body=100_000) as client:
        for value, status in ((1, 200), (113, 406), (2, 200)):
            answer = await client.post("/predict", json=[[value, 0]], headers=ONE_ANSWER)
            assert answer.status_code == status
    assert "raised an error when its stream was closed" in caplog.text


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("kind", ["sync", "async", "stream", "async stream", "loader"])
async def test_a_new_version_that_ends_the_program_is_not_served(numbers, tmp_path, caplog, kind, error):
    fails = False

    def fail_if_asked() -> None:
        if fails:
            raise error

    def predict(model, features: np.ndarray) -> list[float]:
        fail_if_asked()
        return [0.0] * len(features)

    async def predict_async(model, features: np.ndarray) -> list[float]:
        return predict(model, features)

    def predict_stream(model, features: np.ndarray):
        yield predict(model, features)

    async def predict_async_stream(model, features: np.ndarray):
        yield predict(model, features)

    kinds = {"async": predict_async, "stream": predict_stream, "async stream": predict_async_stream}
    app = make_app(numbers[0], kinds.get(kind, predict))

    def load(path):
        if kind == "loader":
            fail_if_asked()
        return numbers[1].estimator

    app.saver(lambda model, path: (path / "sums").write_text(""))
    app.loader(load)
    trained = app.train()
    store = open_store(".", tmp_path)
    store.promote(app.name, store.put(trained).version, "production")
    application = create_asgi(app, model="production", store=store, settings=Serve(refresh=0))
    await application.start_models()
    endpoint = application.endpoints[0]
    watcher = VersionWatcher(endpoint, store, "production")
    store.promote(app.name, store.put(trained).version, "production")
    fails = True
    await watcher.switch_if_moved()
    assert endpoint.current.version == "1"
    assert "version 1 keeps serving, because 2 cannot be served" in caplog.text
    assert error.__name__ in caplog.text
    await application.close_models()


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
