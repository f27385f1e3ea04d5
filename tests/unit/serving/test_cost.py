"""What a plain request costs the server, in lines of mlapp that run: the same on every machine.

`python -m benchmarks.instructions` counts machine instructions, which takes a minute.
"""

from __future__ import annotations

import os
import re
import sys
from types import FrameType
from typing import Any

import pytest

import mlapp
from benchmarks.instructions import CONNECTIONS, NEVER, Client
from mlapp.serving.observability import access_log, metrics

ROOM = 1.05
MOST = {"rows": 72, "records": 73, "lone": 196}
"""Lines for a request. Raise one only for what an answer needs."""
ROOT = os.path.dirname(mlapp.__file__)


@pytest.mark.anyio
@pytest.mark.parametrize("scenario", MOST)
async def test_lines_that_run_for_a_request(scenario, monkeypatch):
    for module in (access_log, metrics):
        monkeypatch.setattr(module, "DELAY", NEVER)
    client = Client(scenario)
    await client.connect()
    await client.send_requests(2 * CONNECTIONS)
    lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        lines += event == "line"
        return count

    requests = 30 * CONNECTIONS
    sys.settrace(count)
    try:
        await client.send_requests(requests)
    finally:
        sys.settrace(None)
    await client.application.close_models()
    assert lines / requests < MOST[scenario] * ROOM


@pytest.mark.anyio
async def test_a_batch_tells_whether_the_server_made_its_ids(monkeypatch):
    for module in (access_log, metrics):
        monkeypatch.setattr(module, "DELAY", NEVER)
    client = Client("rows")
    await client.connect()
    await client.send_requests(2 * CONNECTIONS)
    batches = []
    record = client.recorder.record_batch
    monkeypatch.setattr(client.recorder, "record_batch", lambda *args: (batches.append(args[1]), record(*args)))
    own = client.requests[:]
    with_id = own[7].replace(b"\r\n\r\n", b"\r\nX-Request-ID: theirs\r\n\r\n")
    with_keys = own[7].replace(b'{"inputs"', b'{"keys": {"order": 1}, "inputs"')
    for request in (own[7], with_id, with_keys, own[7]):
        size = len(request) - request.index(b"{")
        client.requests = [*own[:7], re.sub(rb"Length: \d+", b"Length: %d" % size, request), *own[8:]]
        await client.send_requests(2 * CONNECTIONS)
    await client.application.close_models()
    assert sum(map(len, batches)) == 8 * CONNECTIONS
    marked = [batch for batch in batches if batch[0].own_ids == len(batch)]
    assert sum(map(len, marked)) >= 4 * CONNECTIONS
    for batch in marked:
        assert not any(part.keys or part.id == b"theirs" for part in batch)
        assert [part.id for part in batch] == sorted(part.id for part in batch)
    assert {b"theirs"} < {part.id for batch in batches for part in batch}
    assert any(part.keys for batch in batches for part in batch)
