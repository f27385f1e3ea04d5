"""How long a batch waits for the clients that the batch before it answered."""

import asyncio
import itertools

import pytest

from benchmarks.instructions import Client
from mlapp.serving.inference.returning_clients import LONGEST, MAX_SKIPPED, SHARE, SLACK, ReturningClients

CALL = 0.005
"""Seconds of the model's usual call."""


@pytest.fixture
def clients():
    clients = ReturningClients()
    clients.note_answers(32, now=10.0)
    return clients


def test_a_batch_waits_for_a_part_of_the_call(clients):
    assert clients.remaining_wait(1, CALL, now=10.0) == pytest.approx(SHARE * CALL)
    assert clients.remaining_wait(1, CALL, now=10.0 + CALL) < 0, "a request that comes late does not wait"
    assert clients.remaining_wait(1, 1.0, now=10.0) == pytest.approx(LONGEST)


def test_a_batch_with_all_clients_does_not_wait(clients):
    assert clients.remaining_wait(32, CALL, now=10.0) <= 0


def test_the_wait_follows_the_time_in_which_clients_return(clients):
    for turn in range(50):
        clients.note_answers(32, now=float(turn))
        clients.end_wait(32, 32, now=turn + 0.0001)
    clients.note_answers(32, now=50.0)
    assert clients.remaining_wait(1, 0.1, now=50.0) == pytest.approx(SLACK + 0.0002)


def test_a_wait_in_vain_is_repeated_ever_less_often():
    clients = ReturningClients()
    waits = []
    for turn in range(500):
        clients.note_answers(8, now=float(turn))
        if clients.remaining_wait(1, CALL, now=float(turn)) > 0:
            waits.append(turn)
            clients.end_wait(2, 8, now=turn + SHARE * CALL)
    gaps = [after - before for before, after in itertools.pairwise(waits)]
    assert gaps[:3] == [1, 3, 7]
    assert gaps[-1] == MAX_SKIPPED


@pytest.mark.anyio
async def test_requests_of_several_turns_share_a_call_where_many_were_answered_together():
    client = Client("rows")
    await client.connect()
    await client.send_requests(2 * len(client.protocols))
    calls = []
    metrics = client.application.endpoints[0].metrics
    metrics.note_batch = lambda rows, waited, seconds: calls.append(rows)
    for protocol, request in zip(client.protocols, client.requests, strict=True):
        protocol.data_received(request)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert calls == [len(client.protocols)]
    await client.application.close_models()
