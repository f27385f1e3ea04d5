"""Predictors that yield: the streamed answers, and their end when the client disconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from mlapp.errors import ModelError
from mlapp.serving.inference.threaded_stream import AHEAD, ThreadedStream

from .test_batching import ask, with_predictor

pytestmark = pytest.mark.anyio


async def until(condition) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 40)


async def read_stream(application, should_leave: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Request a stream and disconnect when `should_leave`; returns the parts of the body."""
    messages = [{"type": "http.request", "body": b"[[-1, 0]]", "more_body": False}]
    parts: list[bytes] = []
    gone = asyncio.Event()

    async def receive():
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            if should_leave(parts):
                gone.set()

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "root_path": ""}
    await asyncio.wait_for(application(scope, receive, send), 80)
    return parts


def has_two_parts(parts: list[bytes]) -> bool:
    return len(parts) == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_stream_ends_when_its_client_leaves(numbers, serve, kind):
    closed = threading.Event()

    def words(model, features: np.ndarray):
        try:
            while features[0, 0] == -1:
                yield "word"
        finally:
            closed.set()

    async def words_async(model, features: np.ndarray):
        for word in words(model, features):
            yield word
            await asyncio.sleep(0)

    async with serve(with_predictor(numbers[0], words if kind == "sync" else words_async)) as client:
        closed.clear()
        parts = await read_stream(client.application, has_two_parts)
        assert parts[0].startswith(b'data: "word"\n\n')
        if kind == "sync":
            await until(closed.is_set)
        metrics = (await client.get("/metrics")).text
        assert 'mlapp_errors_total{kind="client_left",model="other"} 1.0' in metrics
        assert 'handler="/predict",method="POST",status="499"' in metrics


async def test_a_stream_without_end_is_no_one_answer(numbers, serve):
    closed = threading.Event()

    def words(model, features: np.ndarray):
        try:
            while True:
                yield "word" * 100
        finally:
            closed.set()

    async def words_async(model, features: np.ndarray):
        for word in words(model, features):
            yield word

    for predictor in (words, words_async):
        async with serve(with_predictor(numbers[0], predictor), max_body=100_000) as client:
            answer = await ask(client, 1, accept="application/json")
            assert (answer.status_code, "text/event-stream" in answer.json()["detail"]) == (406, True)
            closed.clear()


async def test_a_stream_that_takes_too_long_is_no_one_answer(numbers, serve):
    async def words(model, features: np.ndarray):
        while True:
            yield "word"
            await asyncio.sleep(0.01)

    async with serve(with_predictor(numbers[0], words)) as client:
        answer = await ask(client, 1, **{"accept": "application/json", "x-request-timeout": "0.1"})
        assert answer.status_code == 504


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_stream_that_fails_at_once_is_a_problem_and_later_an_event(numbers, serve, kind, error):
    def words(model, features: np.ndarray):
        yield from range(int(abs(features[0, 0])))
        if features[0, 0] >= 0:
            return
        raise error("secret")

    async def words_async(model, features: np.ndarray):
        for word in words(model, features):
            yield word

    async with serve(with_predictor(numbers[0], words if kind == "sync" else words_async)) as client:
        at_once = await ask(client, -0.5)
        assert (at_once.status_code, at_once.headers["content-type"]) == (500, "application/problem+json")
        later = await ask(client, -1)
        assert later.status_code == 200
        assert later.text.startswith("data: 0\n\nevent: error\ndata: {")
        assert "secret" not in at_once.text + later.text


async def test_streams_beyond_the_queue_are_refused_with_a_status(numbers, serve):
    free, running = asyncio.Event(), 0

    async def words(model, features: np.ndarray):
        nonlocal running
        running += 1
        if features[0, 0] == -1:
            await free.wait()
        yield "word"
        running -= 1

    async with serve(with_predictor(numbers[0], words), queue=2) as client:
        running = 0
        both = [asyncio.create_task(ask(client, -1)) for _ in range(2)]
        await until(lambda: running == 2)
        full = await ask(client, -1)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        free.set()
        assert {(await one).status_code for one in both} == {200}


async def test_an_endless_stream_does_not_hold_up_the_start(numbers, serve):
    is_trained = False

    async def words(model, features: np.ndarray):
        yield "word"
        while is_trained:
            yield "word"
            await asyncio.sleep(0)

    app = with_predictor(numbers[0], words)
    trained = app.train()
    is_trained = True

    async def start() -> None:
        async with serve(app, trained) as client:
            assert (await client.get("/readyz")).status_code == 200

    await asyncio.wait_for(start(), 40)


async def test_an_item_is_sent_while_the_next_one_is_computed(numbers, serve):
    is_read = threading.Event()

    def words(model, features: np.ndarray):
        yield "first"
        if features[0, 0] == -1:
            assert is_read.wait(40)
        yield "second"

    def note_first(parts: list[bytes]) -> bool:
        if b"first" in parts[-1]:
            is_read.set()
        return False

    async with serve(with_predictor(numbers[0], words)) as client:
        parts = await read_stream(client.application, note_first)
        assert b"".join(parts) == b'data: "first"\n\ndata: "second"\n\nevent: end\ndata: {}\n\n'


async def test_an_object_that_is_yielded_again_keeps_each_of_its_states(numbers, serve):
    def states(model, features: np.ndarray):
        state = {"scores": np.zeros(1)}
        for step in range(100):
            state["scores"][0] = step
            yield state

    async with serve(with_predictor(numbers[0], states)) as client:
        answer = await ask(client, 1, accept="application/json")
        assert answer.json()["predictions"] == [{"scores": [float(step)]} for step in range(100)]


async def test_a_predictor_computes_few_items_that_nobody_reads(numbers, serve):
    count, closed = 0, threading.Event()

    def words(model, features: np.ndarray):
        nonlocal count
        try:
            while True:
                count += 1
                yield "word"
        finally:
            closed.set()

    async with serve(with_predictor(numbers[0], words)) as client:
        closed.clear()
        count = 0
        parts = await read_stream(client.application, has_two_parts)
        await until(closed.is_set)
        sent = b"".join(parts).count(b"data: ")
        assert count <= sent + 2 * AHEAD


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_timeout_inside_the_predictor_is_an_error_of_the_predictor(numbers, serve, kind):
    def words(model, features: np.ndarray):
        if features[0, 0] == -1:
            raise TimeoutError("the database")
        yield "word"

    async def words_async(model, features: np.ndarray):
        for word in words(model, features):
            yield word

    async with serve(with_predictor(numbers[0], words if kind == "sync" else words_async)) as client:
        answer = await ask(client, -1)
        assert answer.status_code == 500
        assert "model's code raised an error" in answer.json()["detail"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
async def test_an_interrupt_inside_a_stream_is_an_error_of_the_predictor(numbers, serve, error):
    def words(model, features: np.ndarray):
        yield "word"
        if features[0, 0] == -1:
            raise error

    async with serve(with_predictor(numbers[0], words)) as client:
        answer = await ask(client, -1)
        assert answer.text.startswith('data: "word"\n\nevent: error\ndata: {')
        assert (await ask(client, 1)).text.endswith("event: end\ndata: {}\n\n")


async def test_the_end_of_a_stream_that_nobody_reads_does_not_hold_up_the_server(numbers, serve):
    may_end = threading.Event()
    closers: list[str] = []

    def words(model, features: np.ndarray):
        try:
            while features[0, 0] == -1:
                yield "word" * 1000
        finally:
            if features[0, 0] == -1:
                closers.append(threading.current_thread().name)
                assert may_end.wait(40)

    async with serve(with_predictor(numbers[0], words), max_body=100_000) as client:
        for _ in range(3):  # whether a step runs at the end or not
            assert (await ask(client, -1, accept="application/json")).status_code == 406
            assert (await client.get("/readyz")).status_code == 200
        may_end.set()
        await until(lambda: len(closers) == 3)
    assert all(name.startswith("stream") for name in closers)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_error_at_the_end_of_a_stream_leaves_its_answer(numbers, serve, caplog, kind):
    def words(model, features: np.ndarray):
        try:
            while features[0, 0] == -1:
                yield "word" * 1000
        finally:
            if features[0, 0] == -1:
                raise OSError("the database is gone")

    async def words_async(model, features: np.ndarray):
        try:
            while features[0, 0] == -1:
                yield "word" * 1000
        finally:
            if features[0, 0] == -1:
                raise OSError("the database is gone")

    async with serve(with_predictor(numbers[0], words if kind == "sync" else words_async), max_body=100_000) as client:
        answer = await ask(client, -1, accept="application/json")
        assert (answer.status_code, "text/event-stream" in answer.json()["detail"]) == (406, True)
        await until(lambda: "the database is gone" in caplog.text)
    assert "raised an error when its stream was closed" in caplog.text


async def test_a_server_that_stops_ends_its_streams_with_an_event(numbers, serve):
    """uvicorn cancels the requests that last longer than `serve.drain`."""

    async def words(model, features: np.ndarray):
        yield "word"
        while features[0, 0] == -1:
            await asyncio.sleep(0.01)

    messages: list[dict] = []
    has_item = asyncio.Event()
    body = [{"type": "http.request", "body": b"[[-1, 0]]", "more_body": False}]

    async def receive() -> dict:
        return body.pop() if body else await asyncio.Future()

    async def send(message: dict) -> None:
        messages.append(message)
        if b"word" in message.get("body", b""):
            has_item.set()

    async with serve(with_predictor(numbers[0], words)) as client:
        scope = {"type": "http", "method": "POST", "path": "/predict", "http_version": "1.1"}
        headers = [(b"content-type", b"application/json")]
        request = asyncio.create_task(client.application(scope | {"headers": headers}, receive, send))
        await has_item.wait()
        client.application.stopping = True
        request.cancel()
        await request
    assert messages[0]["status"] == 200
    assert messages[-1]["body"].startswith(b'event: error\ndata: {"type":"about:blank"')
    assert b"The server is stopping." in messages[-1]["body"]
    assert not messages[-1].get("more_body")


async def test_an_item_that_refers_to_itself_counts_as_an_error(numbers, serve):
    def words(model, features: np.ndarray):
        item: list[object] = []
        item += [item] if features[0, 0] == -1 else []
        yield item

    async with serve(with_predictor(numbers[0], words)) as client:
        assert (await ask(client, -1)).status_code == 500
        assert 'mlapp_errors_total{kind="predictor",model="other"} 1.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize("error", [ValueError, SystemExit])
@pytest.mark.parametrize("kind", ["sync", "async", "async without a stream"])
async def test_a_model_that_cannot_predict_its_example_names_the_predictor(numbers, serve, kind, error):
    has_vocabulary = threading.Event()
    has_vocabulary.set()

    def predict_or_fail(features: np.ndarray) -> list[float]:
        if not has_vocabulary.is_set():
            raise error("no vocabulary")
        return [0.0] * len(features)

    def words(model, features: np.ndarray):
        yield from predict_or_fail(features)

    async def words_async(model, features: np.ndarray):
        for word in predict_or_fail(features):
            yield word

    async def predict(model, features: np.ndarray) -> list[float]:
        return predict_or_fail(features)

    predictor = {"sync": words, "async": words_async}.get(kind, predict)
    async with serve(with_predictor(numbers[0], predictor)) as client:
        (endpoint,) = client.application.endpoints
        has_vocabulary.clear()
        with pytest.raises(ModelError, match="cannot predict its own example: predictor .* no vocabulary"):
            await endpoint.warm_model(endpoint.current)


async def test_a_wait_for_an_item_that_was_taken_already_does_not_end_the_stream():
    may_yield, may_continue = threading.Event(), threading.Event()

    def words():
        may_yield.wait(40)
        yield "first"
        may_continue.wait(40)
        yield "second"

    def start_thread(call: Callable[[], None]) -> None:
        threading.Thread(target=call).start()

    stream = ThreadedStream(words(), str, start_thread, 40, "words")
    waiting = asyncio.ensure_future(stream.take_ready_items())
    await until(lambda: stream._waiter is not None)
    first_waiter = stream._waiter
    with stream._lock:  # the thread stops between the arrival of the item and the end of the wait
        may_yield.set()
        await until(lambda: stream._items)
        assert await stream.take_ready_items() == ["first"]
    await until(lambda: waiting.done() or stream._waiter not in (first_waiter, None))
    may_continue.set()
    assert await waiting == ["second"]
