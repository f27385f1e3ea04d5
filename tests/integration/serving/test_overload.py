"""More requests than the model can take: accepted ones wait for one call, the others are refused during it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from pathlib import Path

import httpx
import pytest

from .conftest import PATIENCE, SLOW, Server, serving, until

BATCH = 8
CALLS = 15
BELIEVED = 5
"""The call from which on the overload is known: two calls show it, and what was accepted until then takes two more."""
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


def rows(count: int) -> bytes:
    """A request of so many rows."""
    return json.dumps([[1, 2]] * count).encode()


HELD_CALL = """
    global calls
    if Path("held").exists():
        calls += 1
        Path(f"call-{calls}").write_text(f"{len(features)}\\n")
        while not Path(f"end-{calls}").exists():
            time.sleep(0.002)
        return [calls] * len(features)
"""
"""Answers with the number of the call, which the test ends."""


async def overload(server: Server) -> tuple[list[int], list[tuple[int, int, bytes]]]:
    """Offer twice the capacity: a call of the model ends when all requests that came during it wait or are refused.

    Returns:
        The rows of each call, and of each request the call during which it came, its status and its answer.
    """
    batches: list[int] = []
    came: list[tuple[int, asyncio.Task[tuple[int, float, bytes]]]] = [(0, asyncio.create_task(ask(server.url)))]

    def read_rows(call: int) -> int:
        file = server.project / f"call-{call}"
        until(lambda: file.exists() and file.read_text().endswith("\n"))
        return int(file.read_text())

    for call in range(1, CALLS + 1):
        batches.append(await asyncio.to_thread(read_rows, call))
        came += [(call, asyncio.create_task(ask(server.url))) for _ in range(2 * BATCH)]
        end = time.monotonic() + PATIENCE
        while True:
            refused = sum(request.done() and request.result()[0] == 503 for _, request in came)
            if await asyncio.to_thread(server.metric, "mlapp_queue_depth") == len(came) - refused - sum(batches):
                break
            assert time.monotonic() < end, "requests that neither wait nor are refused"
        (server.project / f"end-{call}").touch()
    for call in range(CALLS + 1, 2 * CALLS):
        (server.project / f"end-{call}").touch()
    return batches, [(call, (await request)[0], (await request)[2]) for call, request in came]


def test_at_twice_the_capacity_what_is_accepted_waits_for_one_call(new_project) -> None:
    project: Path = new_project()
    app = project / "app.py"
    app.write_text(
        app.read_text()
        .replace("@app.predictor", f"calls = 0\n\n\n@app.predictor(max_batch={BATCH})")
        .replace("-> list[float]:\n", f"-> list[float]:{HELD_CALL}")
    )
    # Calls take as long as this test needs, so that it is not the expected time that limits what waits.
    with serving(project, MLAPP_SERVE__MAX_WAIT="1000", MLAPP_SERVE__TIMEOUT="1000") as server:
        assert httpx.post(f"{server.url}/predict", json=SLOW).status_code == 200
        (project / "held").touch()
        batches, requests = asyncio.run(overload(server))
        accepted = [(call, read_prediction(answer)) for call, status, answer in requests if status == 200]
        refused = [answer for _, status, answer in requests if status == 503]
        assert len(accepted) + len(refused) == len(requests)
        assert batches == [1, *[BATCH] * (CALLS - 1)], "each call is full"
        assert all(re.search(rb"\r\nretry-after: [1-9]\d*\r\n", answer) for answer in refused)
        waits = [(came, answered - came) for came, answered in accepted]
        assert max(calls for _, calls in waits) <= 4
        lasting = [(came, calls) for came, calls in waits if came >= BELIEVED]
        assert lasting == [(call, 1) for call in range(BELIEVED, CALLS + 1) for _ in range(BATCH)]
        assert server.metric("mlapp_errors_total", kind="queue_full") == len(refused)
        assert server.metric("http_requests_total", handler="/predict", status="503") == len(refused)
        assert server.stop() == 0
    logged = [json.loads(line) for line in server.text().splitlines() if line.startswith('{"time"')]
    statuses = [line["status"] for line in logged if line["path"] == "/predict"]
    assert statuses.count(503) == len(refused)
    assert statuses.count(200) == len(accepted) + 1


def read_prediction(answer: bytes) -> int:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]


@pytest.fixture(scope="module")
def small(new_project):
    """A server where 100 rows may wait."""
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
