"""More requests than the model can take: accepted requests keep their latency, the others are refused immediately."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import time
from pathlib import Path

import pytest

from .conftest import PATIENCE, until

CALL = 0.2
BATCH = 8
CAPACITY = BATCH / CALL
SECONDS = 3
TRIALS = 10
CLIENTS_REQUESTS = 8
BODY = json.dumps({"inputs": [{"a": 1.0, "b": 2.0}]}).encode()
HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def ask(url: str, body: bytes = BODY, headers: str = "") -> tuple[int, float, bytes]:
    """The status, the seconds, and the whole answer, over a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{HEAD}{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    return int(answer.split(b" ", 2)[1]), time.perf_counter() - started, answer


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def rows(count: int) -> bytes:
    """A request of so many rows."""
    return json.dumps([[1, 2]] * count).encode()


async def uncontended(url: str) -> list[float]:
    """The seconds of as many clients as one batch takes, each with one request at a time."""
    seen: list[float] = []

    async def client() -> None:
        for _ in range(CLIENTS_REQUESTS):
            status, seconds, _ = await ask(url)
            assert status == 200
            seen.append(seconds)

    await asyncio.gather(*(client() for _ in range(BATCH)))
    return seen


async def overload(url: str) -> list[tuple[int, float, bytes]]:
    """The answers at twice the capacity, for every client."""
    tasks = []
    started = time.perf_counter()
    for number in range(int(2 * CAPACITY * SECONDS)):
        await asyncio.sleep(max(0, started + number / (2 * CAPACITY) - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(url)))
    return await asyncio.gather(*tasks)


def test_at_twice_the_capacity_what_is_accepted_keeps_its_latency(serve, new_project) -> None:
    """Latencies are those of the server only where nothing else holds the machine up: one of the trials must hold."""
    project: Path = new_project()
    app = project / "app.py"
    slow = f"time.sleep({CALL})\n    return model.predict(features).tolist()"
    app.write_text(
        app.read_text()
        .replace("@app.predictor", f"@app.predictor(max_batch={BATCH})")
        .replace("return model.predict(features).tolist()", slow)
    )
    all_accepted = all_refused = trials = 0
    with serve(project) as server:
        while True:
            alone = asyncio.run(uncontended(server.url))
            answers = asyncio.run(overload(server.url))
            accepted = [seconds for status, seconds, _ in answers if status == 200]
            refused = [(seconds, answer) for status, seconds, answer in answers if status == 503]
            assert len(accepted) + len(refused) == len(answers)
            assert all(re.search(rb"\r\nretry-after: [1-9]\d*\r\n", answer) for _, answer in refused)
            all_accepted += len(alone) + len(accepted)
            all_refused += len(refused)
            trials += 1
            found = {
                "accepted in time": p99(accepted) / p99(alone) <= 3,
                "refused at once": statistics.median(seconds for seconds, _ in refused) < CALL / 2,
                "as many accepted as can be": len(accepted) > 0.7 * CAPACITY * SECONDS,
            }
            if all(found.values()) or trials == TRIALS:
                break
        assert all(found.values()), found
        assert server.metric("mlapp_errors_total", kind="queue_full") == all_refused
        assert server.metric("http_requests_total", handler="/predict", status="503") == all_refused
        assert server.stop() == 0
    logged = [json.loads(line) for line in server.text().splitlines() if line.startswith('{"time"')]
    statuses = [line["status"] for line in logged if line["path"] == "/predict"]
    assert statuses.count(503) == all_refused
    assert statuses.count(200) == all_accepted


@pytest.fixture(scope="module")
def small(new_project):
    """A server where 100 rows may wait."""
    from .conftest import serving

    with serving(new_project(), MLAPP_SERVE__QUEUE="100") as server:
        yield server


def left(server) -> float:
    """The clients that left before their answer."""
    return server.metric("mlapp_errors_total", kind="client_left")


def test_a_deadline_frees_the_place(small) -> None:
    async def run() -> None:
        with small.busy():
            waiting = asyncio.create_task(ask(small.url, rows(100), "X-Request-Timeout: 2\r\n"))
            await asyncio.to_thread(small.until_waiting, 1)
            assert (await ask(small.url))[0] == 503
            status, seconds, _ = await waiting
            assert status == 504
            assert 2 <= seconds < PATIENCE / 2
            next_one = asyncio.create_task(ask(small.url, rows(100)))
            await asyncio.to_thread(small.until_waiting, 1)
        assert (await next_one)[0] == 200

    asyncio.run(run())


@pytest.mark.parametrize("headers", ["", "X-Request-Timeout: 30\r\n"], ids=["short way", "asgi"])
def test_a_client_that_hangs_up_frees_its_place(small, headers: str) -> None:
    async def run() -> None:
        with small.busy():
            before = left(small)
            host, _, port = small.url.removeprefix("http://").partition(":")
            body = rows(100)
            with socket.create_connection((host, int(port))) as client:
                client.sendall(f"{HEAD}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                small.until_waiting(1)
                assert (await ask(small.url))[0] == 503
            until(lambda: left(small) == before + 1)
            next_one = asyncio.create_task(ask(small.url, body))
            await asyncio.to_thread(small.until_waiting, 1)
        assert (await next_one)[0] == 200

    asyncio.run(run())


def test_a_large_request_counts_by_its_rows(small) -> None:
    async def run() -> None:
        with small.busy():
            first = asyncio.create_task(ask(small.url, rows(90)))
            await asyncio.to_thread(small.until_waiting, 1)
            assert (await ask(small.url, rows(20)))[0] == 503
            second = asyncio.create_task(ask(small.url, rows(10)))
            await asyncio.to_thread(small.until_waiting, 2)
        assert (await first)[0] == (await second)[0] == 200
        # More than may wait, but nobody else does.
        assert (await ask(small.url, rows(500)))[0] == 200

    asyncio.run(run())
