"""Reads the output of an app's servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from mlapp.deploy.docker.containers import Containers, Server
from mlapp.deploy.target import LogLine

if TYPE_CHECKING:
    from docker.models.containers import Container

MAX_ERROR_LINES = 15
"""Maximum number of log lines in an error message."""
REFRESH_INTERVAL = 2.0
"""Interval in seconds for finding new releases while logs are followed."""


def read_log_lines(containers: Containers, *, follow: bool, tail: int | None, since: float | None) -> Iterator[LogLine]:
    """Output of the running servers, or of the live one if it has stopped; with `follow`, also of later releases.

    Args:
        tail: the number of last lines per server; all if None.
        since: only lines of the last `since` seconds; all if None.
    """
    options: dict[str, Any] = {"tail": "all" if tail is None else tail}
    if since is not None:
        options["since"] = time.time() - since
    if follow:
        yield from _follow_docker_logs(containers, options)
    else:
        live = containers.find_live_server()
        running = [server for server in containers.list_servers() if server.is_running]
        for server in running or ([live] if live else []):  # a stopped server's output has the reason
            yield from _read_server_log_lines(server, follow=False, **options)


def read_last_log_lines(container: Container) -> str:
    """The last lines, joined into one."""
    lines = container.logs(tail=MAX_ERROR_LINES).decode(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines if line.strip()) or "nothing"


def _follow_docker_logs(containers: Containers, options: dict[str, Any]) -> Iterator[LogLine]:
    queue: Queue[LogLine] = Queue()
    known_servers: set[str] = set()
    while True:
        for server in containers.list_servers():
            if server.is_running and server.name not in known_servers:
                known_servers.add(server.name)
                Thread(target=_queue_docker_log_lines, args=(server, queue, options), daemon=True).start()
        refresh_time = time.monotonic() + REFRESH_INTERVAL
        while (remaining := refresh_time - time.monotonic()) > 0:
            with suppress(Empty):
                yield queue.get(timeout=remaining)


def _queue_docker_log_lines(server: Server, queue: Queue[LogLine], options: dict[str, Any]) -> None:
    for line in _read_server_log_lines(server, follow=True, **options):
        queue.put(line)


def _read_server_log_lines(server: Server, *, follow: bool, **options: Any) -> Iterator[LogLine]:
    # The SDK follows a stream by default.
    for raw in server.container.logs(stream=True, follow=follow, timestamps=True, **options):
        for text in raw.decode(errors="replace").splitlines():
            stamp, _, line = text.partition(" ")
            yield LogLine(server.name, line, datetime.fromisoformat(stamp[:19]).replace(tzinfo=timezone.utc))
