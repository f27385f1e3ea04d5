"""A body of the size `serve.max_body` in each format is answered, and so is the kubelet meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import statistics
import threading
import time
from pathlib import Path

import httpx
import pytest

from .conftest import PATIENCE, serving

LARGEST = 16_000_000
PROBE = 1.0
"""Seconds: a probe of Kubernetes waits no longer, unless it is told to."""
USUAL = 0.1
"""Seconds in which a probe is answered: the longest wait says more of the machine than of the server."""
GROWTH = 12
"""Times the body: what the server's process may take."""
TRIALS = 6
DEADLINE = 3 * PATIENCE
"""Seconds: the deadline of a request is no subject here, and 4 million rows take half a minute on a busy machine."""
INFER = "/v2/models/sums/infer"


def fill_body(head: str, item: str, tail: str, between: str = ",") -> tuple[bytes, int]:
    """So many times the item that the body is as large as it may be; and how many."""
    count = (LARGEST - len(head) - len(tail)) // len(item + between)
    return (head + between.join([item] * count) + tail).encode(), count


def tensor(item: str, values: int) -> tuple[bytes, int]:
    about = {"name": "inputs", "datatype": "FP64", "shape": [-1, 2]}
    count = (LARGEST - 200) // (len(item) + 1) // 2 * 2
    about["shape"] = [count * values // 2, 2]
    head = json.dumps({"inputs": [about]})[:-3]
    return (head + ', "data": [' + ",".join([item] * count) + "]}]}").encode(), count * values // 2


def columns() -> tuple[bytes, int]:
    values = ",".join(["1"] * (LARGEST // 4 - 100))
    return f'{{"inputs": {{"a": [{values}], "b": [{values}]}}}}'.encode(), LARGEST // 4 - 100


BODIES = {
    "tensor": (INFER, lambda: tensor("1", 1)),
    "columns": ("/invocations", columns),
    "csv": ("/invocations", lambda: fill_body("a,b\n", "1,1", "\n", "\n")),
}
"""Those that take the most time and memory; `python -m benchmarks.limits` measures all."""


def memory(server, name: str) -> int:
    """Bytes of the server's process."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())[1])


@pytest.fixture(scope="module")
def server(new_project):
    with serving(new_project(), MLAPP_SERVE__TIMEOUT=str(DEADLINE)) as server:
        yield server


@pytest.mark.parametrize(("path", "make"), BODIES.values(), ids=BODIES)
def test_the_largest_body_is_answered_and_the_kubelet_meanwhile(server, path, make):
    """The waits are those of the server only where nothing else holds the machine up: one of the trials must hold."""
    body, rows = make()
    for _ in range(TRIALS):
        waits = answer_and_probe(server, path, body, rows)
        if statistics.median(waits) < USUAL and max(waits) < PROBE:
            return
    pytest.fail(f"probes took {statistics.median(waits):.2f} s, the longest {max(waits):.2f} s")


def answer_and_probe(server, path: str, body: bytes, rows: int) -> list[float]:
    """Send a body, check the answer and the memory, and return the seconds of the probes meanwhile."""
    waits: list[float] = []
    done = threading.Event()

    def probe() -> None:
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            while not done.wait(0.02):
                started = time.perf_counter()
                assert client.get("/livez").status_code == 200
                waits.append(time.perf_counter() - started)

    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = memory(server, "VmRSS")
    thread = threading.Thread(target=probe)
    thread.start()
    media = "text/csv" if body.startswith(b"a,b") else "application/json"
    try:
        answer = httpx.post(server.url + path, content=body, headers={"content-type": media}, timeout=DEADLINE)
    finally:
        done.set()
        thread.join()
    assert answer.status_code == 200, answer.text[:500]
    assert answer.content.count(b"2.0") == rows
    assert memory(server, "VmHWM") - before < GROWTH * LARGEST
    return waits


REFUSED = {
    "text": b'["' + b"a" * 14_000_000 + b'"]',
    "rows": b'{"inputs": [' + b",".join([b'[1.5, "x"]'] * 1_000_000) + b"]}",
    "csv": b"a,c\n" + b"1,2\n" * 3_000_000,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_refused_body_does_not_stay_in_memory(server, body):
    """An error that a future holds is garbage in a cycle, and a server with little to do collects it late."""
    media = "text/csv" if body.startswith(b"a,c") else "application/json"

    def refuse(times: int) -> int:
        for _ in range(times):
            answer = httpx.post(
                server.url + "/predict", content=body, headers={"content-type": media}, timeout=DEADLINE
            )
            assert answer.status_code == 422, answer.text[:500]
        return memory(server, "VmRSS")

    before = refuse(2)  # and starts what decodes
    assert refuse(6) - before < 3 * len(body)


def test_bodies_that_never_end_are_refused_and_give_their_memory_back(server):
    before = memory(server, "VmRSS")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15000000\r\n\r\n"
    url = httpx.URL(server.url)
    clients = [socket.create_connection((url.host, url.port), PATIENCE) for _ in range(20)]
    for client in clients:
        with contextlib.suppress(OSError):  # refused, and closed
            client.sendall(head + b"a" * 14_000_000)
    assert clients[-1].recv(12) == b"HTTP/1.1 503"
    for client in clients:
        client.close()
    until = time.monotonic() + DEADLINE + PATIENCE
    while memory(server, "VmRSS") - before > 3 * LARGEST:
        assert time.monotonic() < until
        time.sleep(0.05)
