"""The server's own HTTP protocol and uvicorn's give the same answers, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from mlapp import App
from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.process.server import configure_uvicorn

from .conftest import numbers_app

KEY = "good"
PREDICT = b"POST /predict HTTP/1.1"
ROWS = b"[[1, 2]]"
JSON = b"Content-Type: application/json"


@contextlib.contextmanager
def running(app: App, trained, **settings) -> Iterator[tuple[str, int]]:
    """The address of a server in a thread of this process."""
    serve = Serve(access_log=False, **settings)
    application = create_asgi(app, model=trained, settings=serve)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configure_uvicorn(application, serve))

    async def main() -> None:
        await application.start_models()
        await server.serve(sockets=[listener])
        await application.close_models()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def both(app: App, trained, **settings):
    with running(app, trained, fast=True, **settings) as own, running(app, trained, fast=False, **settings) as uvicorns:
        yield own, uvicorns


@pytest.fixture(scope="module")
def servers(numbers):
    with both(*numbers, max_body=2000, cors=["https://shop.example"], api_keys=[KEY], timeout=5.0) as servers:
        yield servers


@pytest.fixture(scope="module")
def open_servers(numbers):
    with both(*numbers) as servers:
        yield servers


@pytest.fixture(scope="module")
def streams():
    app = numbers_app("streams")

    @app.predictor
    def predict(model, features):
        for row in range(3):
            if (features == -1).to_numpy().any() and row == 1:
                raise RuntimeError("a secret of the code")
            yield {"row": row}

    with both(app, app.train()) as servers:
        yield servers


def exchange(address: tuple[str, int], sent: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers on a connection, each as status, headers and body; no interim ones, and no ids made up."""
    with socket.create_connection(address, timeout=100) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(sent)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                data += part
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        if first.split()[1] == "100":
            continue
        if headers.get("x-request-id", "mine") != "mine":
            headers["x-request-id"] = "another"
        if headers.get("transfer-encoding") == "chunked":
            while size := int(data[: data.index(b"\r\n")], 16):
                start = data.index(b"\r\n") + 2
                body, data = body + data[start : start + size], data[start + size + 2 :]
            data = data.partition(b"\r\n\r\n")[2]
        else:
            size = 0 if sent.startswith(b"HEAD") else int(headers.get("content-length", len(data)))
            body, data = data[:size], data[size:]
        answers.append((int(first.split()[1]), headers, body))
    return answers


def request(*lines: bytes, body: bytes = b"", key: bytes = b"X-API-Key: good") -> bytes:
    first, *more = lines
    if body and not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in more):
        more.append(b"Content-Length: %d" % len(body))
    fixed = [b"Host: x", b"X-Request-ID: mine", b"Connection: close"]
    return b"\r\n".join([first, *fixed, *([key] if key else []), *more, b"", body])


TENSOR = {"inputs": [{"name": "inputs", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}]}
CASES = {
    "prediction": request(PREDICT, JSON, body=ROWS),
    "object": request(PREDICT, body=b'{"inputs": [[1, 2], [3, 4]]}'),
    "columns": request(PREDICT, body=b'{"inputs": {"a": [1], "b": [2]}}'),
    "UnionML": request(PREDICT, body=b'{"features": [{"a": 1, "b": 2}]}'),
    "bearer": request(PREDICT, b"Authorization: Bearer good", body=ROWS, key=b""),
    "no key": request(PREDICT, body=ROWS, key=b""),
    "wrong key": request(PREDICT, body=ROWS, key=b"X-API-Key: bad"),
    "two keys": request(PREDICT, b"X-API-Key: bad", body=ROWS),
    "no body": request(PREDICT),
    "empty": request(PREDICT, b"Content-Length: 0"),
    "no JSON": request(PREDICT, body=b"{"),
    "no fit": request(PREDICT, body=b'[["x", 2]]'),
    "unknown column": request(PREDICT, body=b'[{"a": 1, "c": 2}]'),
    "NaN": request(PREDICT, body=b"[[NaN, 1]]"),
    "text of another type": request(PREDICT, b"Content-Type: text/plain", body=ROWS),
    "form": request(PREDICT, b"Content-Type: application/x-www-form-urlencoded", body=ROWS),
    "csv": request(PREDICT, b"Content-Type: text/csv", body=b"a,b\n1,2\n"),
    "upper case": request(PREDICT, b"CONTENT-TYPE: APPLICATION/JSON; charset=utf-8", body=ROWS),
    "packed": request(PREDICT, b"Content-Encoding: gzip", body=gzip.compress(ROWS, mtime=0)),
    "packed wrongly": request(PREDICT, b"Content-Encoding: gzip", body=ROWS),
    "unknown packing": request(PREDICT, b"Content-Encoding: br", body=ROWS),
    "chunks": request(PREDICT, b"Transfer-Encoding: chunked", body=b"4\r\n[[1,\r\n4\r\n 2]]\r\n0\r\n\r\n"),
    "as large as may be": request(PREDICT, body=ROWS + b" " * (2000 - len(ROWS))),
    "too large": request(PREDICT, body=ROWS + b" " * 2000),
    "too large in chunks": request(
        PREDICT, b"Transfer-Encoding: chunked", body=b"FA0\r\n" + b" " * 4000 + b"\r\n0\r\n\r\n"
    ),
    "too large, not sent": request(PREDICT, b"Content-Length: 5000"),
    "deadline": request(PREDICT, b"X-Request-Timeout: 3", body=ROWS),
    "wrong deadline": request(PREDICT, b"X-Request-Timeout: soon", body=ROWS),
    "negative deadline": request(PREDICT, b"X-Request-Timeout: -1", body=ROWS),
    "cors": request(PREDICT, b"Origin: https://shop.example", body=ROWS),
    "cors of another": request(PREDICT, b"Origin: https://evil.example", body=ROWS),
    "cors and problem": request(PREDICT, b"Origin: https://shop.example", body=b"{"),
    "preflight": request(
        b"OPTIONS /predict HTTP/1.1", b"Origin: https://shop.example", b"Access-Control-Request-Method: POST", key=b""
    ),
    "method": request(b"GET /predict HTTP/1.1"),
    "head": request(b"HEAD /livez HTTP/1.1"),
    "path": request(b"GET /nothing HTTP/1.1"),
    "probe": request(b"GET /livez HTTP/1.1", key=b""),
    "ready": request(b"GET /readyz HTTP/1.1", key=b""),
    "query": request(b"POST /predict?x=1 HTTP/1.1", body=ROWS),
    "slash": request(b"POST /predict/ HTTP/1.1", body=ROWS),
    "escaped path": request(b"POST /%70redict HTTP/1.1", body=ROWS),
    "model": request(b"GET /models HTTP/1.1"),
    "tensor": request(b"POST /v2/models/numbers/infer HTTP/1.1", body=json.dumps(TENSOR).encode()),
    "wrong tensor": request(b"POST /v2/models/numbers/infer HTTP/1.1", body=b"{}"),
    "MLflow": request(b"POST /invocations HTTP/1.1", body=b'{"instances": [[1, 2]]}'),
    "KServe": request(b"POST /v1/models/numbers:predict HTTP/1.1", body=b'{"instances": [[1, 2]]}'),
    "feedback": request(b"POST /feedback HTTP/1.1", body=b"{}"),
    "id that is none": request(PREDICT, b"X-Request-ID: a b", body=ROWS),
    "expectation": request(PREDICT, b"Expect: 100-continue", body=ROWS),
    "two on one connection": request(PREDICT, body=ROWS).replace(b"Connection: close", b"Connection: keep-alive")
    + request(PREDICT, body=b"[[3, 4]]"),
    "after a problem": request(PREDICT, body=b"[[1]]").replace(b"Connection: close", b"Connection: keep-alive")
    + request(PREDICT, body=b"[[3, 4]]"),
}


@pytest.mark.parametrize("sent", CASES.values(), ids=CASES)
def test_answers_are_the_same(servers, sent: bytes) -> None:
    own, uvicorns = (exchange(address, sent) for address in servers)
    assert own, "no answer"
    assert own == uvicorns


@pytest.mark.parametrize(
    "sent",
    [
        request(PREDICT, body=ROWS, key=b""),
        request(PREDICT, body=b"[[1]]", key=b""),
        request(PREDICT, body=b'[{"a": 1, "b": 2}]', key=b""),
        request(PREDICT, b"Origin: https://shop.example", body=ROWS, key=b""),
        request(PREDICT, b"Transfer-Encoding: chunked", body=b"8\r\n[[1, 2]]\r\n0\r\n\r\n", key=b""),
    ],
)
def test_without_keys_and_origins_too(open_servers, sent: bytes) -> None:
    own, uvicorns = (exchange(address, sent) for address in open_servers)
    assert own[0][0] in (200, 422)
    assert own == uvicorns


@pytest.mark.parametrize("first", [b"GET /nothing HTTP/1.1", b"POST /predict/ HTTP/1.1", PREDICT])
def test_a_request_that_waits_for_100_continue_behind_another_is_answered(open_servers, first: bytes) -> None:
    """Its body arrives after the answer to the first."""
    keep = b"Connection: keep-alive"
    sent = request(first, body=ROWS).replace(b"Connection: close", keep)
    head, _, body = request(PREDICT, b"Expect: 100-continue", body=ROWS).partition(b"\r\n\r\n")
    for address in open_servers:
        with socket.create_connection(address, timeout=100) as connection:
            connection.sendall(sent + head + b"\r\n\r\n")
            answers = b""
            while answers.count(b"HTTP/1.1") < 2:
                part = connection.recv(65536)
                assert part, answers
                answers += part
            assert b"HTTP/1.1 100 Continue" in answers
            connection.sendall(body)
            while part := connection.recv(65536):
                answers += part
        assert answers.endswith(b'{"predictions":[3.0],"model":"numbers","version":null}'), answers


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((), ROWS, 200),
        ((b"Accept: application/json",), ROWS, 200),
        ((), b"[[1]]", 422),
        ((), b"[[-1, 1]]", 200),
        ((b"Accept: application/json",), b"[[-1, 1]]", 500),
    ],
    ids=["events", "one answer", "refused", "error between events", "error"],
)
def test_streams_are_the_same(streams, lines, body: bytes, status: int) -> None:
    own, uvicorns = (exchange(address, request(PREDICT, *lines, body=body, key=b"")) for address in streams)
    assert [answer[0] for answer in own] == [status]
    assert own == uvicorns
    assert b"secret" not in own[0][2]
