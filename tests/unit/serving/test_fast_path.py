"""The fast path of a prediction request, on a connection without a socket."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import time

import pytest
from uvicorn.server import ServerState

from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.fast_path.request_cycle import FastCycle
from mlapp.serving.process.server import configure_uvicorn

pytestmark = pytest.mark.anyio


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent = b""
        self.closed = False

    def write(self, data):
        self.sent += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def can_write_eof(self):
        return False

    def pause_reading(self): ...

    def resume_reading(self): ...


@pytest.fixture
async def connect(numbers):
    """Opens connections to a server of the numbers app."""
    opened = []
    application = create_asgi(numbers[0], model=numbers[1], settings=Serve(access_log=False, max_bodies=1000))
    await application.start_models()
    config = configure_uvicorn(application, Serve())
    config.load()
    state = ServerState()

    def connect():
        protocol = config.http_protocol_class(config=config, server_state=state, app_state={})
        transport = Transport()
        protocol.connection_made(transport)
        opened.append(protocol)
        return protocol, transport

    yield connect
    for protocol in opened:
        protocol.connection_lost(None)
    await application.close_models()


def request(*rows, length=None):
    body = json.dumps({"inputs": rows}).encode()
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (length or len(body), body)


def count_cycles() -> int:
    return sum(type(item) is FastCycle for item in gc.get_objects())


async def answers(*transports: Transport) -> None:
    """Wait until each has sent an answer. A model that a busy machine held up runs in a thread for a while."""
    end = time.monotonic() + 100
    while not all(transport.sent for transport in transports):
        assert time.monotonic() < end
        await asyncio.sleep(0)


@pytest.mark.parametrize("last", [1, 3])
async def test_each_connection_of_a_batch_gets_its_own_answer(connect, last):
    """Also where one of them sends more rows than the others."""
    connections = [connect() for _ in range(5)]
    for turn in range(3):
        sizes = [1, 1, 1, 1, last]
        for number, (protocol, transport) in enumerate(connections):
            transport.sent = b""
            protocol.data_received(request(*[[number, row + turn] for row in range(sizes[number])]))
        await answers(*(transport for _, transport in connections))
        identities = set()
        for number, (_, transport) in enumerate(connections):
            head, _, body = transport.sent.partition(b"\r\n\r\n")
            assert b"content-length: %d" % len(body) in head
            assert json.loads(body)["predictions"] == [number + turn + row for row in range(sizes[number])]
            identities.add(head.partition(b"x-request-id: ")[2])
        assert len(identities) == len(connections)


@pytest.mark.parametrize("turns", [1, 3])
async def test_a_wrong_request_and_a_client_that_left_take_nothing_from_the_others(connect, turns):
    """Also where their heads are known, so that all bodies are decoded in one turn."""
    (good, sent), (wrong, refused), (left, silent) = (connect() for _ in range(3))
    for turn in range(turns):
        sent.sent = refused.sent = silent.sent = b""
        wrong.data_received(request([1, "x"]))
        good.data_received(request([1, 2]))
        left.data_received(request([5, 6]))
        if turn == turns - 1:
            silent.closed = True
            left.connection_lost(None)
        await answers(sent, refused)
        assert sent.sent.endswith(b'{"predictions":[3.0],"model":"numbers","version":null}')
        assert refused.sent.startswith(b"HTTP/1.1 422")
    assert silent.sent == b""


async def test_a_second_request_before_the_answer_waits_for_it(connect):
    connections = [connect() for _ in range(2)]
    for _ in range(3):
        for protocol, transport in connections:
            transport.sent = b""
            protocol.data_received(request([1, 2]))
            protocol.data_received(request([1, 5]))
        end = time.monotonic() + 100
        while not all(transport.sent.count(b"HTTP/1.1 200") == 2 for _, transport in connections):
            assert time.monotonic() < end
            await asyncio.sleep(0)
        for _, transport in connections:
            assert transport.sent.find(b'"predictions":[3.0]') < transport.sent.find(b'"predictions":[6.0]')


async def test_bodies_that_do_not_end_are_refused_once_they_hold_too_much(connect):
    connections = [connect() for _ in range(3)]
    for protocol, _ in connections:
        protocol.data_received(request([1, 2], length=5000)[:60] + b"[" + b" " * 400)
    assert [transport.sent[:12] for _, transport in connections] == [b"", b"", b"HTTP/1.1 503"]


async def test_a_client_that_resets_its_connection_while_it_is_refused_raises_nothing(connect):
    """As `socket.shutdown` does then."""
    protocol, transport = connect()

    def write_eof() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    transport.can_write_eof, transport.write_eof = lambda: True, write_eof
    protocol.data_received(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
    assert transport.sent.startswith(b"HTTP/1.1 501")
    protocol.connection_lost(None)


async def test_an_answered_request_leaves_nothing_to_the_garbage_collector(connect):
    connections = [connect() for _ in range(2)]
    gc.collect()
    gc.disable()
    before = count_cycles()
    try:
        for _ in range(20):
            for row in ([1, 2], [1, "wrong"]):
                for protocol, transport in connections:
                    transport.sent = b""
                    protocol.data_received(request(row))
                await answers(*(transport for _, transport in connections))
        end = time.monotonic() + 100
        while count_cycles() - before > len(connections) and time.monotonic() < end:
            await asyncio.sleep(0.01)  # calls in the thread, on a busy machine, are noted later
        assert count_cycles() - before == len(connections)
    finally:
        gc.enable()
