"""Waiting requests are predicted in one batch, and each gets its own answer."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import numpy as np
import pytest

from mlapp import App
from mlapp.serving.inference.latency import Latency

pytestmark = pytest.mark.anyio


def with_predictor(numbers_app: App, predictor, **options) -> App:
    app = App("other", target="y")
    app.stages |= {role: stage for role, stage in numbers_app.stages.items() if role != "predictor"}
    app.predictor(**options)(predictor)
    return app


async def ask(client, *values: float, **headers: str):
    return await client.post("/predict", json=[[value, 0] for value in values], headers=headers)


async def count_waiting(client) -> float:
    """The requests in the model's queue."""
    (line,) = re.findall(r"^mlapp_queue_depth{.*} (.*)$", (await client.get("/metrics")).text, re.MULTILINE)
    return float(line)


async def test_one_bad_request_fails_alone(numbers, serve, caplog):
    sizes = []

    def predict(model, features: np.ndarray):
        sizes.append(len(features))
        if (features == 113).any():
            raise RuntimeError("secret")
        return features[:, 0].tolist()

    app = with_predictor(numbers[0], predict)
    async with serve(app) as client:
        answers = await asyncio.gather(*(ask(client, value) for value in (*range(13), 113, *range(14, 20))))
        assert max(sizes) > 1
        for value, answer in enumerate(answers):
            if value == 13:
                assert answer.status_code == 500
                assert "secret" not in answer.text
            else:
                assert answer.json()["predictions"] == [value]
    assert "secret" in caplog.text


async def test_batch_false_gets_one_request_at_a_time(numbers, serve):
    sizes = []

    def predict(model, features: np.ndarray):
        sizes.append(len(features))
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict, batch=False)) as client:
        sizes.clear()
        await asyncio.gather(*(ask(client, 1, 2) for _ in range(5)))
        assert sizes == [2] * 5


async def test_a_batch_that_may_wait_goes_at_once_when_it_is_full(numbers, serve):
    sizes = []

    def predict(model, features: np.ndarray):
        sizes.append(len(features))
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict, wait=3600, max_batch=6)) as client:
        sizes.clear()
        answers = await asyncio.gather(*(ask(client, value) for value in range(6)))
        assert [answer.json()["predictions"] for answer in answers] == [[value] for value in range(6)]
        assert sizes == [6]


@pytest.fixture
def measure_calls(monkeypatch):
    """Make the server measure each call as this long: on a busy machine a pause is longer than it was asked for."""
    add_call = Latency.add_call

    def fix_length(seconds: float) -> None:
        monkeypatch.setattr(Latency, "add_call", lambda latency, measured, rows: add_call(latency, seconds, rows))

    return fix_length


async def test_slow_predictor_leaves_the_loop_free_and_keeps_deadlines(numbers, serve, measure_calls):
    measure_calls(0.15)
    calls, free = [], threading.Event()

    def predict(model, features: np.ndarray):
        calls.append(features[:, 0].tolist())
        if calls[-1] == [1]:
            free.wait()
        return calls[-1]

    async with serve(with_predictor(numbers[0], predict), queue=2) as client:
        slow = asyncio.create_task(ask(client, 1))
        while calls[-1] != [1]:
            assert (await client.get("/livez")).status_code == 200
            await asyncio.sleep(0.001)
        assert (await client.get("/livez")).status_code == 200
        assert (await ask(client, 2, **{"x-request-timeout": "0.2"})).status_code == 504
        waiting = [asyncio.create_task(ask(client, value)) for value in (3, 4)]
        while await count_waiting(client) < 2:
            await asyncio.sleep(0.001)
        full = await ask(client, 5)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        free.set()
        assert (await slow).json()["predictions"] == [1]
        assert [(await answer).json()["predictions"] for answer in waiting] == [[3], [4]]


async def test_async_predictor_and_stream(numbers, serve):
    async def predict(model, features: np.ndarray):
        await asyncio.sleep(0.01)
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict)) as client:
        assert (await ask(client, 5)).json()["predictions"] == [5]

    def words(model, features: np.ndarray):
        yield from ["a", {"b": 1}]

    async with serve(with_predictor(numbers[0], words)) as client:
        answer = await ask(client, 5)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.text == 'data: "a"\n\ndata: {"b":1}\n\nevent: end\ndata: {}\n\n'
        assert (await ask(client, 5, accept="application/json")).json()["predictions"] == ["a", {"b": 1}]


async def test_an_async_predictor_is_bounded_and_ends_with_its_client(numbers, serve):
    running, free = 0, asyncio.Event()

    async def predict(model, features: np.ndarray):
        nonlocal running
        if (features < 0).any():
            running += 1
            try:
                await free.wait()
            finally:
                running -= 1
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict), queue=2) as client:
        both = []
        for value in (-1, -2):
            both.append(asyncio.create_task(ask(client, value)))
            while running < len(both):
                await asyncio.sleep(0.001)
        full = await ask(client, -3)
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        free.set()
        assert [(await answer).json()["predictions"] for answer in both] == [[-1], [-2]]
        free.clear()
        assert (await ask(client, -4, **{"x-request-timeout": "0.2"})).status_code == 504
        while running:
            await asyncio.sleep(0.001)
        assert (await ask(client, 0)).status_code == 200


async def test_a_failed_batch_is_not_retried_without_a_waiting_client(numbers, serve, measure_calls):
    measure_calls(0.15)
    calls, free, are_late = [], threading.Event(), threading.Event()

    def predict(model, features: np.ndarray):
        calls.append(len(features))
        if features[0, 0] == -1:
            free.wait()
        if features[0, 0] < -1:
            are_late.wait()
            raise RuntimeError("always")
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict)) as client:
        calls.clear()
        first = asyncio.create_task(ask(client, -1))
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(ask(client, -2, **{"x-request-timeout": "0.5"})) for _ in range(8)]
        while await count_waiting(client) < len(others) and not others[0].done():
            await asyncio.sleep(0.001)
        calls.clear()
        free.set()
        assert {(await other).status_code for other in others} == {504}
        are_late.set()
        assert (await first).status_code == 200
        assert (await ask(client, 0)).status_code == 200
        assert len(calls) <= 2


async def test_few_wait_for_a_slow_predictor_that_takes_one_at_a_time(numbers, serve, measure_calls):
    measure_calls(0.06)
    started, free = threading.Event(), threading.Event()

    def predict(model, features: np.ndarray):
        if (features < 0).any():
            started.set()
            free.wait(100)
        time.sleep(0.06)
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict, batch=False), max_wait=0.1) as client:
        asked = [asyncio.create_task(ask(client, -1))]
        await asyncio.to_thread(started.wait, 20)
        asked += [asyncio.create_task(ask(client, value)) for value in range(1, 10)]
        full = await asked[-1]
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        free.set()
        answers = [await one for one in asked]
        accepted = [answer.json()["predictions"] for answer in answers if answer.status_code == 200]
        assert accepted[0] == [-1]
        assert accepted == sorted(accepted), "in the order in which they came"
        assert 2 <= len(accepted) <= 5


@pytest.mark.parametrize(("clients", "rows"), [(4, 1000), (64, 1), (64, 1000)])
async def test_clients_that_wait_for_their_answers_are_no_overload(numbers, serve, measure_calls, clients, rows):
    """`max_wait` is 300 calls."""
    measure_calls(0.015)

    def predict(model, features: np.ndarray):
        time.sleep(0.015)
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict, max_batch=64), max_wait=5) as client:

        async def ask_again(value: int) -> list[int]:
            return [(await ask(client, *[value] * rows)).status_code for _ in range(3)]

        answers = await asyncio.gather(*map(ask_again, range(clients)))
        assert {status for statuses in answers for status in statuses} == {200}
        assert "mlapp_queue_expected_seconds" in (await client.get("/metrics")).text


async def test_six_clients_that_take_turns_are_no_overload_but_a_crowd_is(numbers, serve, measure_calls):
    """Six clients wait up to five calls, 1.5 times `max_wait`; after a refusal, requests wait `max_wait` at most."""
    measure_calls(0.08)
    first, others = threading.Event(), threading.Event()
    first.set()
    others.set()

    def predict(model, features: np.ndarray):
        (first if features[0, 0] == 0 else others).wait(100)
        return features[:, 0].tolist()

    async with serve(with_predictor(numbers[0], predict, batch=False), max_wait=0.08 / 0.3) as client:

        async def ask_again(value: int) -> list[int]:
            return [(await ask(client, value)).status_code for _ in range(2)]

        answers = await asyncio.gather(*map(ask_again, range(6)))
        assert {status for statuses in answers for status in statuses} == {200}
        first.clear()
        others.clear()
        crowd = [asyncio.create_task(ask(client, value)) for value in range(20)]
        while sum(one.done() for one in crowd) < 12:
            await asyncio.sleep(0.001)
        first.set()
        assert (await crowd[0]).status_code == 200
        late = await ask(client, 0)
        assert (late.status_code, late.headers["retry-after"]) == (503, "1"), "after a refusal, it is `max_wait` again"
        others.set()
        accepted = [(await one).status_code for one in crowd].count(200)
        assert accepted in {7, 8}
        assert (await ask(client, 0)).status_code == 200
