"""Large answers: clients that read them slowly, or not at all, cannot hold more memory than the limit of bodies."""

from __future__ import annotations

import asyncio

import pytest

from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.web.http import Request, Response

pytestmark = pytest.mark.anyio


async def test_an_answer_counts_toward_the_memory_of_bodies_until_it_is_read(numbers):
    """A small body can have a large answer, which its client may not read."""
    application = create_asgi(numbers[0], model=numbers[1], settings=Serve(access_log=False, max_bodies=100_000))
    await application.start_models()
    large = Response(b"x" * 1_200_000)  # counts as 50,000 bytes of bodies

    async def answer_large(request: Request) -> Response:
        return large

    application.add_route("GET", "/large", answer_large)
    can_read = asyncio.Event()
    statuses: list[int] = []
    sent: list[bytes] = []

    async def send(message: dict) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            return
        sent.append(message["body"])
        if message["body"].startswith(b"x"):
            await can_read.wait()

    async def ask() -> None:
        scope = {"type": "http", "method": "GET", "path": "/large", "http_version": "1.1", "headers": []}
        await application(scope, asyncio.Future, send)

    readers = [asyncio.create_task(ask()) for _ in range(3)]
    await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    assert sorted(statuses) == [200, 200, 503]
    can_read.set()
    await asyncio.gather(*readers)
    assert sum(map(len, (part for part in sent if part.startswith(b"x")))) == 2_400_000
    assert application.intake.held == 0
    await application.close_models()


async def test_a_large_answer_that_its_client_does_not_read_in_time_is_dropped(numbers, caplog):
    application = create_asgi(numbers[0], model=numbers[1], settings=Serve(access_log=False, timeout=0.1))
    await application.start_models()

    async def answer_large(request: Request) -> Response:
        return Response(b"x" * 1_200_000)

    async def send(message: dict) -> None:
        if "body" in message:
            await asyncio.Future()

    application.add_route("GET", "/large", answer_large)
    scope = {"type": "http", "method": "GET", "path": "/large", "http_version": "1.1", "headers": []}
    await application(scope, asyncio.Future, send)
    assert "a client did not read its answer of 1200000 bytes within serve.timeout (0.1 s)" in caplog.text
    assert application.intake.held == 0
    await application.close_models()
