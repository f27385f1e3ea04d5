"""A client that keeps its connection sends the same headers again and again: each request is still its own."""

from __future__ import annotations

import json
import socket

import pytest

from .conftest import PATIENCE, serving

KEY = "s3cret"


@pytest.fixture(scope="module")
def server(new_project):
    with serving(new_project(), MLAPP_SERVE__API_KEYS=KEY) as server:
        yield server


@pytest.fixture
def connection(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        yield connection


def request(a: float, *more: str, key: str = KEY) -> bytes:
    body = json.dumps([{"a": a, "b": 0.5}])
    lines = ["POST /predict HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", body]).encode()


def answers(connection: socket.socket, count: int = 1) -> list[tuple[int, object]]:
    """Status and predictions of the next answers."""
    file = connection.makefile("rb")
    found = []
    for _ in range(count):
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        found.append((status, json.loads(file.read(int(headers["content-length"]))).get("predictions")))
    return found


def test_each_gets_its_own_answer(connection) -> None:
    for a in (1.0, 2.0, 3.0):
        connection.sendall(request(a))
        assert answers(connection) == [(200, [a + 0.5])]


def test_in_parts_and_several_at_once(connection) -> None:
    for _ in range(2):
        for part in (request(4.0)[:-3], request(4.0)[-3:]):
            connection.sendall(part)
        assert answers(connection) == [(200, [4.5])]
        connection.sendall(request(5.0) + request(6.0) + request(7.0)[:-1])
        assert answers(connection, 2) == [(200, [5.5]), (200, [6.5])]
        connection.sendall(request(7.0)[-1:])
        assert answers(connection) == [(200, [7.5])]


def test_an_id_of_the_clients_returns_with_each(connection) -> None:
    for identity in ("first", "second"):
        connection.sendall(request(1.0, f"X-Request-ID: {identity}"))
        assert f"x-request-id: {identity}\r\n".encode() in connection.recv(65536)


def test_a_key_admits_only_its_own_request(connection) -> None:
    for key, status in ((KEY, 200), ("s3creT", 401), (KEY, 200)):
        connection.sendall(request(1.0, key=key))
        assert answers(connection)[0][0] == status


@pytest.mark.parametrize("prefix", [b"\r\n", b"\r\n\r\n"])
def test_empty_lines_before_a_request_are_no_head(connection, prefix: bytes) -> None:
    for _ in range(2):
        connection.sendall(prefix + request(1.0))
        assert answers(connection) == [(200, [1.5])]


def test_ends_of_lines_that_parsers_disagree_on_are_refused(connection) -> None:
    connection.sendall(request(1.0).replace(b"\r\nHost", b"\nHost"))
    assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_request_that_ends_its_connection_ends_it_each_time(server) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    for _ in range(2):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(request(1.0, "Connection: close"))
            assert answers(connection) == [(200, [1.5])]
            assert connection.recv(1) == b""
