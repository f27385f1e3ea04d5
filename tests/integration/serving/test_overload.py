"""More requests than the model can take: those that are accepted keep their latency, the others are told at once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import time
from pathlib import Path

import httpx
import pytest

CALL = 0.05
BATCH = 8
CAPACITY = BATCH / CALL
SECONDS = 3
BODY = json.dumps({"inputs": [{"a": 1.0, "b": 2.0}]}).encode()
SLOW = json.dumps({"inputs": [{"a": -2.0, "b": 2.0}]}).encode()
HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def ask(url: str, body: bytes = BODY, headers: str = "") -> tuple[int, float, bytes]:
    """The status, the seconds, and the whole answer, over a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{HEAD}{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return int(answer.split(b" ", 2)[1]), time.perf_counter() - started, answer


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


async def uncontended(url: str) -> float:
    """p99 of as many clients as one batch takes, each with one request at a time."""
    seen: list[float] = []

    async def client() -> None:
        for _ in range(12):
            status, seconds, _ = await ask(url)
            assert status == 200
            seen.append(seconds)

    await asyncio.gather(*(client() for _ in range(BATCH)))
    return p99(seen)


async def overload(url: str) -> list[tuple[int, float, bytes]]:
    """The answers at twice the capacity, whoever waits for his."""
    tasks = []
    started = time.perf_counter()
    for number in range(int(2 * CAPACITY * SECONDS)):
        await asyncio.sleep(max(0, started + number / (2 * CAPACITY) - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(url)))
    return await asyncio.gather(*tasks)


def test_at_twice_the_capacity_what_is_accepted_keeps_its_latency(serve, new_project) -> None:
    project: Path = new_project()
    app = project / "app.py"
    slow = f"time.sleep({CALL})\n    return model.predict(features).tolist()"
    app.write_text(
        app.read_text()
        .replace("@app.predictor", f"@app.predictor(max_batch={BATCH})")
        .replace("return model.predict(features).tolist()", slow)
    )
    with serve(project) as server:
        alone = asyncio.run(uncontended(server.url))
        answers = asyncio.run(overload(server.url))
        metrics = httpx.get(f"{server.url}/metrics").text
        assert server.stop() == 0
    logged = [json.loads(line) for line in server.text().splitlines() if line.startswith('{"time"')]
    accepted = [seconds for status, seconds, _ in answers if status == 200]
    refused = [(seconds, answer) for status, seconds, answer in answers if status == 503]
    assert len(accepted) + len(refused) == len(answers)
    assert p99(accepted) <= 3 * alone, alone
    assert len(accepted) > 0.7 * CAPACITY * SECONDS
    assert all(b"\r\nretry-after: 1\r\n" in answer for _, answer in refused)
    assert statistics.median(seconds for seconds, _ in refused) < CALL / 2
    assert f'mlapp_errors_total{{kind="queue_full",model="sums"}} {len(refused)}.0' in metrics
    assert f'http_requests_total{{handler="/predict",method="POST",status="503"}} {len(refused)}.0' in metrics
    assert sum(line["status"] == 503 for line in logged) == len(refused)
    assert sum(line["status"] == 200 for line in logged) == len(accepted) + 12 * BATCH + 1  # and /metrics


@pytest.fixture(scope="module")
def project(new_project) -> Path:
    """Its model takes a second for -2."""
    project: Path = new_project()
    app = project / "app.py"
    app.write_text(app.read_text().replace("time.sleep(2)", "time.sleep(1)"))
    return project


@pytest.fixture(scope="module")
def small(project):
    """A server where one row may wait."""
    from .conftest import serving

    with serving(project, MLAPP_SERVE__QUEUE="1") as server:
        yield server


async def errors(url: str) -> dict[str, float]:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    return {kind: float(value) for kind, value in re.findall(r'mlapp_errors_total{kind="(\w+)",.*} (.*)', text)}


def test_a_deadline_frees_the_place(small) -> None:
    async def run() -> None:
        await ask(small.url, SLOW)  # now the model is known to be slow
        first = asyncio.create_task(ask(small.url, SLOW))
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(ask(small.url, BODY, "X-Request-Timeout: 0.5\r\n"))
        await asyncio.sleep(0.1)
        assert (await ask(small.url))[0] == 503
        status, seconds, _ = await waiting
        assert status == 504
        assert 0.4 < seconds < 1.2
        assert (await ask(small.url))[0] == 200
        assert (await first)[0] == 200

    asyncio.run(run())


@pytest.mark.parametrize("headers", ["", "X-Request-Timeout: 20\r\n"], ids=["short way", "asgi"])
def test_a_client_that_hangs_up_frees_its_place(small, headers: str) -> None:
    async def run() -> None:
        before = (await errors(small.url))["client_left"]
        first = asyncio.create_task(ask(small.url, SLOW))
        await asyncio.sleep(0.2)
        host, _, port = small.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as left:
            left.sendall(f"{HEAD}{headers}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
            await asyncio.sleep(0.2)
            assert (await ask(small.url))[0] == 503
        await asyncio.sleep(0.2)
        assert (await errors(small.url))["client_left"] == before + 1
        assert (await ask(small.url))[0] == 200
        assert (await first)[0] == 200

    asyncio.run(run())


def test_a_large_request_counts_by_its_rows(serve, project) -> None:
    async def run(url: str) -> None:
        await ask(url, SLOW)
        first = asyncio.create_task(ask(url, SLOW))
        await asyncio.sleep(0.2)
        rows = asyncio.create_task(ask(url, json.dumps([[1, 2]] * 90).encode()))
        await asyncio.sleep(0.2)
        assert (await ask(url, json.dumps([[1, 2]] * 20).encode()))[0] == 503
        assert (await ask(url, json.dumps([[1, 2]] * 10).encode()))[0] == 200
        assert (await first)[0] == (await rows)[0] == 200
        # More than may wait, but nobody else does.
        assert (await ask(url, json.dumps([[1, 2]] * 500).encode()))[0] == 200

    with serve(project, MLAPP_SERVE__QUEUE="100") as server:
        asyncio.run(run(server.url))
