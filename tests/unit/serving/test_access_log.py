"""The access log: lines of JSON, written in batches, without losses."""

from __future__ import annotations

import json
import os
from select import PIPE_BUF

import pytest

from mlapp.serving.observability.access_log import AccessLog

pytestmark = pytest.mark.anyio


async def test_a_line_a_request_whatever_is_in_the_path():
    read, write = os.pipe()
    log = AccessLog(write)
    log.log_request("POST", "/predict", 200, 0.00123456, b"id-1", ("127.0.0.1", 5))
    log.log_request("GET", '/a"\\\n%s\u20ac', 404, 1.5, b"id-2", None)
    log.flush_lines()
    first, second = map(json.loads, os.read(read, 10_000).decode().splitlines())
    assert first.pop("time") > 1e9
    assert first == {
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "seconds": 0.001235,
        "request_id": "id-1",
        "client": "127.0.0.1",
    }
    assert (second["path"], second["status"], second["client"]) == ('/a"\\\n%s\u20ac', 404, None)


async def test_a_pipe_gets_whole_lines_at_once(monkeypatch):
    """Several workers write into one pipe, which keeps only so many bytes together."""
    log = AccessLog(-1)
    for number in range(200):
        log.log_request("GET", f"/{number}", 200, 0.1, b"id", None)
    pieces: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda file, content: pieces.append(content) or len(content))
    log.flush_lines()
    assert len(pieces) > 1
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"}\n") for piece in pieces)
    assert [json.loads(line)["path"] for line in b"".join(pieces).splitlines()] == [f"/{at}" for at in range(200)]


async def test_probes_are_logged_when_they_fail():
    read, write = os.pipe()
    log = AccessLog(write)
    log.log_request("GET", "/livez", 200, 0.1, b"id", None)
    log.log_request("GET", "/readyz", 200, 0.1, b"id", None)
    log.log_request("GET", "/readyz", 503, 0.1, b"id", None)
    log.flush_lines()
    [line] = os.read(read, 10_000).splitlines()
    assert json.loads(line)["status"] == 503


async def test_a_closed_output_stops_nothing():
    read, write = os.pipe()
    os.close(read)
    log = AccessLog(write)
    log.log_request("GET", "/predict", 200, 0.1, b"id", None)
    log.flush_lines()
