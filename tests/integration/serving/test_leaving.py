"""A terminating pod: SIGTERM while clients send on persistent connections, before its endpoint is removed."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests import servers

from .conftest import PATIENCE, until

BODY = json.dumps({"inputs": [{"a": 1.0, "b": 2.0}]})


class Clients:
    """Clients that send all the time, each over a connection that it keeps until the server closes it."""

    def __init__(self, count: int, choose_address: Callable[[int], str]) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self._choose_address = choose_address
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _send(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ended.is_set():
            try:
                if connection is None or connection.sock is None:
                    connection = http.client.HTTPConnection(self._choose_address(number), timeout=PATIENCE)
                connection.request("POST", "/predict", BODY, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {text[:100]!r}")
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = None
            time.sleep(0.02)


def test_no_request_is_lost_when_a_pod_leaves(serve, new_project: Callable[..., Path]) -> None:
    project = new_project()
    with serve(project, "--grace", "2") as old, serve(project) as new:
        service = [old.url.removeprefix("http://"), new.url.removeprefix("http://")]
        with servers.nginx(*service) as ingress:
            address = ingress.url.removeprefix("http://")
            outside = Clients(20, lambda number: address)
            inside = Clients(12, lambda number: service[number % len(service)])
            with outside, inside:
                until(lambda: min(outside.answers, inside.answers) > 40)
                old.process.send_signal(signal.SIGTERM)
                time.sleep(0.4)  # the endpoints follow later, and within the grace period
                service.pop(0)
                ingress.remove_first()
                assert old.process.wait(PATIENCE) == 0
                answers = outside.answers + inside.answers
                until(lambda: outside.answers + inside.answers > answers + 40)
            assert outside.failures + inside.failures == []
