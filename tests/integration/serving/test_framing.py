"""The end of a request: the server and a proxy agree on it, or the server answers and closes the connection."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import httpx
import pytest

from tests import servers

from .conftest import PATIENCE, serving

KEY = "s3cret"
BODY = b'{"inputs": [[1.0, 2.0]]}'
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
"""What Java's HTTP client and `curl --http2` send with every request in clear text."""
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Swallow: "
MARK = b"GET /livez HTTP/1.1\r\nHost: mark\r\nX-Request-ID: mark\r\nConnection: close\r\n\r\n"
"""A request behind another: its answer comes last, and tells that the server saw where the first ended."""


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "uvicorn"])
def is_fast(request) -> bool:
    """Whether the server has its own protocol, or uvicorn's."""
    return request.param


@pytest.fixture(scope="module")
def server(is_fast, new_project):
    with serving(new_project(), MLAPP_SERVE__API_KEYS=KEY, MLAPP_SERVE__FAST=str(is_fast)) as server:
        yield server


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def exchange(url: str, *segments: bytes) -> bytes:
    """Everything received on a connection after the segments were sent one by one."""
    with socket.create_connection(address(url), timeout=PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for segment in segments:
                connection.sendall(segment)
                time.sleep(0.02)
            while part := connection.recv(65536):
                answer += part
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def post(*lines: bytes, body: bytes = b"", path: bytes = b"/predict") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"Content-Type: application/json"]
    return b"\r\n".join([*head, b"Authorization: Bearer " + KEY.encode(), *lines, b"", body])


def chunked(body: bytes) -> bytes:
    half = len(body) // 2
    parts = (body[:half], body[half:], b"")
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


LENGTH = b"Content-Length: %d" % len(BODY)
OFFER_LINES = OFFER.strip()
WHOLE = {
    "length": post(LENGTH, OFFER_LINES, body=BODY),
    "chunks": post(b"Transfer-Encoding: chunked", OFFER_LINES, body=chunked(BODY)),
    "a list": post(LENGTH, b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket", body=BODY),
    "two lines": post(LENGTH, b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: foo/2", body=BODY),
    "websocket": post(LENGTH, b"Connection: Upgrade\r\nUpgrade: websocket", body=BODY),
    "TLS": post(LENGTH, b"Connection: Upgrade\r\nUpgrade: TLS/1.3", body=BODY),
    "lone upgrade": post(LENGTH, b"Upgrade: h2c", body=BODY),
    "a predictor's stream": post(LENGTH, OFFER_LINES, b"X-Request-Timeout: 5", body=BODY),
}


@pytest.mark.parametrize("cut", ["one segment", "behind the head", "in the body", "in the head"])
@pytest.mark.parametrize("request_", WHOLE.values(), ids=WHOLE)
def test_an_offer_to_upgrade_is_ignored_and_the_body_is_read(server, request_: bytes, cut: str) -> None:
    head = request_.index(b"\r\n\r\n") + 4
    at = {"one segment": 0, "behind the head": head, "in the body": head + 5, "in the head": head - 30}[cut]
    answer = exchange(server.url, request_[:at], request_[at:] + MARK)
    assert statuses(answer) == [200, 200], answer
    assert b'"predictions":[3.0]' in answer
    assert answer.endswith(b'{"status":"ok"}')
    assert b"x-request-id: mark" in answer


@pytest.mark.parametrize("body", [SMUGGLED, BODY + SMUGGLED], ids=["a request", "behind JSON"])
@pytest.mark.parametrize("framed", ["length", "chunks"])
def test_the_body_of_an_offer_is_never_a_request(server, framed: str, body: bytes) -> None:
    lines = b"Transfer-Encoding: chunked" if framed == "chunks" else b"Content-Length: %d" % len(body)
    request_ = post(lines, OFFER_LINES, body=chunked(body) if framed == "chunks" else body)
    head = request_.index(b"\r\n\r\n") + 4
    answer = exchange(server.url, request_[:head], request_[head:], MARK)
    assert statuses(answer) == [400, 200], answer
    assert b"smuggled" not in answer


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
def test_offers_of_other_methods_are_ignored(server, method: bytes) -> None:
    answer = exchange(server.url, method + b" /livez HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n", MARK)
    assert len(statuses(answer)) == 2, answer
    assert b"x-request-id: mark" in answer


def test_a_tunnel_is_refused(server) -> None:
    answer = exchange(server.url, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", MARK)
    assert statuses(answer)[0] >= 400


HOST = b"Host: x"
DOUBTFUL = {
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two hosts alike": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "length and chunks": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 2", b"Content-Length: 3", body=b"[]]"),
    "two lengths in a line": post(b"Content-Length: 2, 3", body=b"[]]"),
    "negative length": post(b"Content-Length: -1", body=b"[]"),
    "signed length": post(b"Content-Length: +2", body=b"[]"),
    "hexadecimal length": post(b"Content-Length: 0x2", body=b"[]"),
    "length with a space": post(b"Content-Length: 1 2", body=b"[]"),
    "chunks of a word": post(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
    "chunk too long": post(b"Transfer-Encoding: chunked", body=b"2\r\n[]x\r\n0\r\n\r\n"),
    "chunk of a minus": post(b"Transfer-Encoding: chunked", body=b"-2\r\n[]\r\n0\r\n\r\n"),
    "chunk of 2 ** 64": post(b"Transfer-Encoding: chunked", body=b"1" + b"0" * 16 + b"\r\n[]"),
    "chunked is not last": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "gzip, then chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "gzip and chunked in two lines": post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "identity, then chunked": post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"),
    "chunks of HTTP/1.0": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "name with a space": post(b"Content-Length : 2", body=b"[]"),
    "name with a tab": post(b"Content-Length\t: 2", body=b"[]"),
    "bare LF": b"POST /predict HTTP/1.1\nHost: x\nContent-Length: 2\n\n[]",
    "bare CR": post(b"X-A: b\rContent-Length: 2", body=b"[]"),
    "null in a header": post(b"X-A: \x00", body=b""),
    "line without a colon": post(b"Content-Length 2", body=b""),
    "folded line": post(b"X-A: b\r\n Content-Length: 2", body=b"[]"),
    "version 9.9": b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /livez\r\n\r\n",
    "space in the path": b"GET /livez x HTTP/1.1\r\nHost: x\r\n\r\n",
    "method of letters": b"GE T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
}

READ_BY_UVICORN = {"bare LF", "folded line", "version 9.9", "version 2", "chunk of 2 ** 64"}
"""What h11, the parser of uvicorn's own protocol, reads as it was meant: there is one end of it, and no other."""


@pytest.mark.parametrize("offer", [b"", OFFER], ids=["plain", "with an offer"])
@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_message_whose_end_is_in_doubt_ends_its_connection(server, is_fast: bool, case: str, offer: bytes) -> None:
    if not is_fast and case in READ_BY_UVICORN:
        return
    line, _, rest = DOUBTFUL[case].partition(b"\n")
    answer = exchange(server.url, line + b"\n" + offer + rest, MARK)
    assert b"x-request-id: mark" not in answer, answer
    assert len(statuses(answer)) <= 1, answer
    assert all(400 <= status < 600 for status in statuses(answer)), answer


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip\r\nTransfer-Encoding: chunked", b"identity, chunked"])
def test_a_transfer_coding_that_is_not_supported_is_named(server, is_fast: bool, coding: bytes) -> None:
    answer = exchange(server.url, post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n"))
    assert statuses(answer) == ([501] if is_fast else [400]), answer
    if is_fast:
        assert b"chunked' is not supported. Use chunked." in answer


def test_an_expectation_that_is_not_known_is_refused(server) -> None:
    answer = exchange(server.url, post(LENGTH, b"Expect: a-miracle", body=BODY))
    assert statuses(answer) == [417], answer


def test_a_host_that_is_none_is_refused(server, is_fast: bool) -> None:
    answer = exchange(server.url, b"GET /livez HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n")
    assert statuses(answer) == ([400] if is_fast else [200]), answer


def test_a_target_with_a_fragment_is_no_path(server, is_fast: bool) -> None:
    """A proxy that does not cut the fragment off would see another path than the server."""
    answer = exchange(server.url, post(LENGTH, b"Connection: close", body=BODY, path=b"/predict#/../livez"))
    assert statuses(answer) == ([400] if is_fast else [404]), answer


def test_an_answer_that_is_due_comes_before_the_connection_ends(server) -> None:
    """Behind a whole request comes what is none: the first is answered as if it were alone."""
    answer = exchange(server.url, post(LENGTH, body=BODY) + b"\x00\x01 no request\r\n\r\n")
    assert statuses(answer)[0] == 200, answer
    assert b'"predictions":[3.0]' in answer


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 431)], ids=["60 kB", "70 kB"])
def test_headers_are_bounded_in_one_segment_too(server, is_fast: bool, size: int, status: int) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: "
    answer_statuses = statuses(exchange(server.url, head + b"b" * size + b"\r\n\r\n"))
    assert answer_statuses == [status] or not is_fast, answer_statuses


@pytest.fixture
def proxy(server) -> Iterator[str]:
    with servers.nginx(server.url.removeprefix("http://")) as front:
        yield front.url


def test_behind_nginx_no_client_gets_the_answer_to_anothers_request(proxy) -> None:
    """A client without a key sends, as the body of an offer, the begin of a request that would take in the next."""
    body = b"\r\n" * 10_000 + SMUGGLED  # nginx keeps it in a file, and sends it behind the head, by another call
    attack = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def attacked() -> None:
        with socket.create_connection(address(proxy), timeout=PATIENCE) as connection:
            connection.sendall(attack)
            assert b" 401 " in connection.recv(65536)

    def was_asked(number: int) -> bool:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": f"client-{number}"}
        answer = httpx.post(f"{proxy}/predict", json=[[number, 0]], headers=headers, timeout=PATIENCE)
        mine = answer.headers.get("x-request-id") == f"client-{number}"
        return mine and answer.status_code == 200 and answer.json()["predictions"] == [number]

    with ThreadPoolExecutor(4) as pool:
        for number in range(0, 40, 4):
            attacked()
            assert all(pool.map(was_asked, range(number, number + 4)))


def test_behind_nginx_an_offer_with_a_body_is_answered(proxy) -> None:
    """As Java's HTTP client sends it."""
    headers = {"authorization": f"Bearer {KEY}", "connection": "Upgrade", "upgrade": "h2c"}
    for body in (json.dumps([[1, 2]]).encode(), json.dumps([[1, 2]] * 50_000).encode()):
        answer = httpx.post(f"{proxy}/predict", content=body, headers=headers, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
    packed = gzip.compress(json.dumps([[1, 2]]).encode())
    answer = httpx.post(
        f"{proxy}/predict", content=packed, headers=headers | {"content-encoding": "gzip"}, timeout=PATIENCE
    )
    assert answer.json()["predictions"] == [3.0]


def test_each_client_gets_its_own_answer_while_others_hang_up(server) -> None:
    """Many connections at once, on every way through the server, a third of which break off somewhere."""
    random = Random(7)
    infer = b"/v2/models/sums/infer"

    def forms(a: int) -> list[bytes]:
        rows, csv = b"[[%d, 0.25]]" % a, b"a,b\n%d,0.25\n" % a
        tensor = b'{"inputs":[{"name":"inputs","datatype":"FP64","shape":[1,2],"data":[%d,0.25]}]}' % a
        large = b"[" + b",".join([b"[%d, 0.25]" % a] * 30_000) + b"]"
        return [
            post(b"Content-Length: %d" % len(rows), body=rows),
            post(b"Content-Length: %d" % len(rows), b"X-Request-Timeout: 20", body=rows),
            post(b"Content-Length: %d" % len(rows), OFFER_LINES, body=rows),
            post(b"Transfer-Encoding: chunked", body=chunked(rows)),
            post(b"Content-Length: %d" % len(csv), body=csv).replace(b"application/json", b"text/csv"),
            post(b"Content-Length: %d" % len(tensor), body=tensor, path=infer),
            *([post(b"Content-Length: %d" % len(large), body=large)] if a % 20 == 0 else []),
        ]

    def client(number: int) -> list[bytes]:
        wrong = []
        connection = socket.create_connection(address(server.url), timeout=PATIENCE)
        for turn in range(25):
            a = 1000 * number + turn
            request_ = random.choice(forms(a))
            if random.random() < 0.3:
                connection.sendall(request_[: random.randrange(len(request_) + 1)])
                connection.close()
                connection = socket.create_connection(address(server.url), timeout=PATIENCE)
                continue
            connection.sendall(request_)
            reader = connection.makefile("rb")
            status, headers = reader.readline(), {}
            while line := reader.readline().strip():
                name, _, value = line.partition(b": ")
                headers[name.lower()] = value
            content = reader.read(int(headers[b"content-length"]))
            if b" 200 " not in status or b"%d.25" % a not in content:
                wrong.append(status + content[:200])
        connection.close()
        return wrong

    with ThreadPoolExecutor(16) as pool:
        assert [error for error in pool.map(client, range(1, 33)) if error] == []
