"""Large answers: clients that read them slowly, or not at all, cannot hold more memory than the limit of bodies."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import tracemalloc

import numpy as np
import pytest

from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.decoding import json_body
from mlapp.serving.protocols import open_inference
from mlapp.serving.protocols.open_inference_request import InferRequest
from mlapp.serving.protocols.tensors import Tensor
from mlapp.serving.web.http import Request, Response

from .conftest import numbers_app
from .test_both_protocols import running

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


ROW_BYTES = 12_000_000
"""Bytes of a prediction: more than the buffers of a connection hold."""
ASK = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n[[1, 2]]"


@pytest.fixture(scope="module")
def texts():
    """A small body has a large answer."""
    app = numbers_app("texts")

    @app.predictor
    def predict(model, features) -> list[str]:
        return ["x" * ROW_BYTES for _ in range(len(features))]

    return app, app.train()


def open_answer(address: tuple[str, int]) -> tuple[socket.socket, bytes]:
    """A connection on which a request is sent, and the status of its answer, the rest of which is not read."""
    connection = socket.create_connection(address, timeout=100)
    connection.sendall(ASK)
    start = b""
    while len(start) < 12:
        start += connection.recv(12 - len(start))
    return connection, start[9:]


def read_answer(connection: socket.socket) -> bytes:
    """The body of the answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    parts, size = [body], len(body)
    while size < length:
        parts.append(connection.recv(1 << 20))
        size += len(parts[-1])
        assert parts[-1], "the answer ends too early"
    return b"".join(parts)


@pytest.mark.parametrize("fast", [True, False])
def test_large_answers_of_small_bodies_are_refused_beyond_the_limit(texts, fast: bool) -> None:
    """They count as 500,000 bytes of bodies until they are read."""
    with running(*texts, fast=fast, max_bodies=1_200_000) as address:
        opened = [open_answer(address) for _ in range(3)]
        assert [status for _, status in opened] == [b"200", b"200", b"503"]
        assert b"serve.max_bodies" in read_answer(opened[2][0])
        for connection, _ in opened[:2]:
            assert json.loads(read_answer(connection))["predictions"] == ["x" * ROW_BYTES]
        end = time.monotonic() + 100
        status = b"503"
        while status != b"200":  # until the server has seen that all is sent
            assert time.monotonic() < end, "the answers count although they are read"
            last, status = open_answer(address)
            last.close()
        for connection, _ in opened:
            connection.close()


@pytest.mark.parametrize("fast", [True, False])
def test_requests_behind_a_large_answer_are_answered_in_order(texts, fast: bool) -> None:
    with running(*texts, fast=fast) as address, socket.create_connection(address, timeout=100) as connection:
        connection.sendall(ASK + ASK + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += connection.recv(1)
            assert data.startswith(b"HTTP/1.1 200")
            size = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while size:
                size -= len(connection.recv(min(size, 1 << 20)))
        assert read_answer(connection) == b'{"status":"ok"}'


@pytest.mark.parametrize("fast", [True, False])
def test_a_client_that_does_not_read_a_large_answer_is_disconnected(texts, fast: bool, caplog) -> None:
    with running(*texts, fast=fast, timeout=0.5) as address:
        connection, status = open_answer(address)
        assert status == b"200"
        while "did not read its answer" not in caplog.text:
            assert open_answer(address)[1] == b"200"
        with pytest.raises((ConnectionResetError, AssertionError)):
            read_answer(connection)
        connection.close()


@pytest.fixture
def part_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of what each call of the encoder returns. During a call, no other thread runs."""
    encode, sizes = json_body._encode, []

    def encode_part(value: object) -> bytes:
        part = encode(value)
        sizes.append(len(part))
        return part

    monkeypatch.setattr(json_body, "_encode", encode_part)
    return sizes


@pytest.mark.parametrize(
    "values",
    [[0.5] * 300_000, ["x" * 100] * 30_000, [[0.5] * 1000] * 300, [[[0.5] * 1000] * 300], [{"a": "x" * 50}] * 100_000],
    ids=["numbers", "texts", "rows", "an image", "records"],
)
def test_many_values_are_encoded_in_parts(values: list, part_sizes: list[int]) -> None:
    body = json_body.encode_predictions(values, b"}")
    assert json.loads(body) == {"predictions": values}
    assert max(part_sizes) < 1_000_000 < len(body)


@pytest.mark.parametrize("identity", [None, 'a "request"'])
def test_the_tensors_of_an_answer_are_encoded_in_parts(identity: str | None, part_sizes: list[int]) -> None:
    outputs = [Tensor("sums", np.arange(300_000.0), "FP64"), Tensor("names", np.array(["x", "y"], object), "BYTES")]
    answer = open_inference._make_v2_answer("m", "1", InferRequest([], identity), outputs)
    assert json.loads(answer.body) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "sums", "datatype": "FP64", "shape": [300_000], "data": outputs[0].array.tolist()},
            {"name": "names", "datatype": "BYTES", "shape": [2], "data": ["x", "y"]},
        ],
        **({} if identity is None else {"id": identity}),
    }
    assert max(part_sizes) < 1_000_000 < len(answer.body)


def test_the_parts_of_a_body_are_copied_once() -> None:
    values = ["x" * 100] * 100_000
    tracemalloc.start()
    try:
        size = len(json_body.encode_predictions(values, b"}"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * size
