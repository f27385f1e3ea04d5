"""What a plain request costs the server, in lines of mlapp that run: the same on every machine.

`python -m benchmarks.instructions` counts machine instructions, which takes a minute.
"""

from __future__ import annotations

import os
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
