"""The access log: one JSON line per request, on stdout."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from select import PIPE_BUF

import msgspec

from mlapp.printable_text import make_printable_json

DELAY = 0.1
"""Seconds that a line may wait. Lines are written together, because a system call per request is expensive."""
PROBES = ("/livez", "/readyz")
"""Paths whose successful requests are not logged: an orchestrator sends them every few seconds."""
START = b'{"time":%.3f,"method":%b,"path":%b,"status":%d,"seconds":'
REST = b'%b%.6f,"request_id":"%b","client":%b}\n'  # ids need no escaping: see `choose_request_id`
Client = tuple[str, int] | None


@lru_cache
def _encode(value: object) -> bytes:
    """JSON of a text, cached because few paths and clients occur."""
    return make_printable_json(msgspec.json.encode(value).decode()).encode()


class AccessLog:
    """Collects lines and writes them periodically."""

    def __init__(self, file: int | None = None) -> None:
        self._file = file
        self._batches: list[tuple[float, str, str, int, list[tuple[float, bytes, Client]]]] = []

    def log_request(self, method: str, path: str, status: int, seconds: float, identity: bytes, client: Client) -> None:
        """Log an answered request. Call it in the event loop."""
        if status != 200 or path not in PROBES:
            self.log_requests(method, path, status, [(seconds, identity, client)])

    def log_requests(self, method: str, path: str, status: int, requests: list[tuple[float, bytes, Client]]) -> None:
        """Log requests that were answered together. Call it in the event loop.

        Args:
            requests: the duration in seconds, the id and the client of each.
        """
        if not self._batches:
            asyncio.get_running_loop().call_later(DELAY, self.flush_lines)
        self._batches.append((time.time(), method, path, status, requests))

    def flush_lines(self) -> None:
        """Write the collected lines. A closed stdout does not stop the server."""
        batches, self._batches = self._batches, []
        if not batches:
            return
        lines: list[bytes] = []
        for at, method, path, status, requests in batches:
            start = START % (at, _encode(method), _encode(path), status)
            lines += [
                REST % (start, seconds, identity, _encode(client and client[0]))
                for seconds, identity, client in requests
            ]
        try:
            file = sys.stdout.fileno() if self._file is None else self._file
            for content in _cut_log_writes(lines):
                _write_log_fully(file, content)
        except (OSError, ValueError):
            return


def _cut_log_writes(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces of at most the atomic write size of a pipe, so that lines of several workers never mix."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > PIPE_BUF:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    yield b"".join(piece)


def _write_log_fully(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
