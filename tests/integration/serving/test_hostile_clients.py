"""Slow, lying or numerous clients get an answer or are disconnected, and all others are served."""

from __future__ import annotations

import contextlib
import gzip
import resource
import socket
import time
import zlib
from collections.abc import Iterator

import httpx
import psutil
import pytest

from .conftest import PATIENCE, until

BODY = {"inputs": [{"a": 1.0, "b": 2.0}]}
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
TIMEOUT = 1.5
MAX_BODY = 1_000_000
CONNECTIONS = 10_000


@pytest.fixture(scope="module")
def server(new_project):
    from .conftest import serving

    with serving(new_project(), MLAPP_SERVE__TIMEOUT=str(TIMEOUT), MLAPP_SERVE__MAX_BODY=str(MAX_BODY)) as server:
        yield server


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    """A well-behaved client, which must be served before and after."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        assert_served(client)
        yield client
        assert_served(client)


def assert_served(client: httpx.Client) -> None:
    assert client.post("/predict", json=BODY).json()["predictions"] == [3.0]
    assert client.get("/readyz").status_code == 200


def connect(server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def answer_to(server, request: bytes) -> bytes:
    """All that the server answers until it closes the connection."""
    with connect(server) as connection:
        connection.sendall(request)
        return rest_of(connection)


def rest_of(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            answer += part
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def resident(server) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


def test_headers_that_trickle_in_are_cut_off(server, client) -> None:
    end = time.monotonic() + PATIENCE
    with connect(server) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.sendall(b"POST /predict HTTP/1.1\r\n")
        while time.monotonic() < end:
            connection.sendall(b"X-A: b\r\n")
            time.sleep(0.1)


@pytest.mark.parametrize("length", [b"1000", b"900000"], ids=["small", "large"])
def test_a_body_that_trickles_in_is_answered_408_and_cut_off(server, client, length: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: " + length + b'\r\n\r\n{"inputs": [')
        for _ in range(3):
            connection.sendall(b" ")
            time.sleep(0.1)
        assert status_of(rest_of(connection)) == 408


def test_half_sent_bodies_delay_no_other_client(server, client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(connect(server))
            connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"inputs": [')
        assert_served(client)


@pytest.mark.parametrize(
    ("length", "body", "statuses"),
    [
        (b"Content-Length: -5", b"{}", {400}),
        (b"Content-Length: x", b"{}", {400}),
        (b"Content-Length: 5\r\nContent-Length: 6", b"[1,2]x", {400}),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", {400}),
        (b"Content-Length: 99999999999999999999999999", b"{}", {400, 413}),
        (b"Content-Length: 2000000", b"{}", {413}),
        (b"Transfer-Encoding: chunked", b"zz\r\n[]\r\n", {400}),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (2_000_000, b" " * 2_000_000), {413}),
        (b"Content-Length: 4", b"[[1,2]]", {400}),
        (b"Transfer-Encoding: gzip", b"{}", {400, 501}),
    ],
)
def test_lengths_that_are_wrong_are_refused(server, client, length: bytes, body: bytes, statuses: set[int]) -> None:
    answer = answer_to(server, HEAD + b"Connection: close\r\n" + length + b"\r\n\r\n" + body)
    assert status_of(answer) in statuses, answer


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the begin of a TLS handshake
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%ff%00/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000 + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n",
        b"\x00" * 1000,
        b"\r\n" * 10_000 + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
    ids=["tls", "version", "path", "long path", "many headers", "null", "zeros", "empty lines"],
)
def test_invalid_requests_affect_no_other_client(server, client, request_: bytes) -> None:
    answer = answer_to(server, request_)
    assert not answer or status_of(answer) < 500, answer[:300]


@pytest.mark.parametrize(
    ("begin", "more", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n", 431),
        (b"GET / HTTP/1.1\r\nX-A: ", b"b", 431),
        (b"GET /", b"b", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", b"b", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n0\r\n", b"X-A: b\r\n", None),
    ],
    ids=["headers", "a header", "a path", "a chunk's extension", "trailers"],
)
def test_what_is_beside_the_body_may_not_go_on_for_ever(server, client, begin, more: bytes, status: int | None) -> None:
    before, sent = resident(server), 0
    with connect(server) as connection:
        connection.sendall(begin)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100_000_000:
                connection.sendall(more * 10_000)
                sent += len(more) * 10_000
        answer = rest_of(connection)
    assert sent < 50_000_000
    assert resident(server) - before < 20_000_000
    assert not answer or status_of(answer) == status


def test_a_client_that_never_reads_its_answers_is_cut_off(server, client) -> None:
    """A stream that it asked for would go on computing nothing, and hold a place, forever."""
    with connect(server) as connection:
        connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        assert connection.recv(1)
        port = connection.getsockname()[1]
        opened = psutil.Process(server.process.pid).net_connections
        until(lambda: port not in {each.raddr.port for each in opened("tcp") if each.raddr})


def test_a_client_that_sends_on_reads_why_it_was_refused(server, client) -> None:
    """Closing the connection while its body arrives would reset it, and delete the answer."""
    body = b"[[1, 2]]" + b" " * 9_900_000
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(20)]
        for number, connection in enumerate(connections):
            if number % 2:
                connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            else:
                connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        for connection in connections:
            answer = b""
            while part := connection.recv(65536):
                answer += part
            assert status_of(answer) == 413


def bomb(encoding: str, size: int) -> bytes:
    """Zeros, a thousandth as large when packed."""
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    return b"".join(packer.compress(bytes(10**6)) for _ in range(size // 10**6)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_body_is_unpacked_up_to_the_limit(server, client, encoding: str) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    content = bomb(encoding, 100_000_000)
    assert len(content) < MAX_BODY
    before = resident(server)
    for _ in range(100):
        assert client.post("/predict", content=content, headers=headers).status_code == 413
    assert resident(server) - before < 50_000_000
    assert client.post("/predict", content=content[:-9][:400], headers=headers).status_code == 400
    assert client.post("/predict", content=b"no", headers=headers).status_code == 400
    twice = headers | {"Content-Encoding": "gzip, gzip"}
    assert client.post("/predict", content=gzip.compress(gzip.compress(b"[]")), headers=twice).status_code == 415


def test_ten_thousand_open_connections_leave_the_server_answering(server, client) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    before = resident(server)
    connections = []
    try:
        for number in range(CONNECTIONS):
            connections.append(connect(server))
            if number % 2:
                connections[-1].sendall(b"POST /pre")
            if number % 1000 == 0:
                assert_served(client)
        assert_served(client)
        process = psutil.Process(server.process.pid)
        until(lambda: len(process.net_connections("tcp")) >= CONNECTIONS / 2)  # a busy server accepts them late
        assert resident(server) - before < CONNECTIONS * 20_000
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
