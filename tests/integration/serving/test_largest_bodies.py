"""A body as large as `serve.max_body` lets in, in each form: it is answered, and so is the kubelet meanwhile."""

from __future__ import annotations

import json
import re
import statistics
import threading
import time
from pathlib import Path

import httpx
import pytest

from .conftest import PATIENCE

LARGEST = 16_000_000
PROBE = 1.0
"""Seconds: a probe of Kubernetes waits no longer, unless it is told to."""
USUAL = 0.1
"""Seconds in which a probe is answered: the longest wait says more of the machine than of the server."""
GROWTH = 12
"""Times the body: what the server's process may take."""
INFER = "/v2/models/sums/infer"


def filled(head: str, item: str, tail: str, between: str = ",") -> tuple[bytes, int]:
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
    "csv": ("/invocations", lambda: filled("a,b\n", "1,1", "\n", "\n")),
}
"""Those that take the most time and memory; `python -m benchmarks.limits` measures all."""


def memory(server, name: str) -> int:
    """Bytes of the server's process."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())[1])


@pytest.mark.parametrize(("path", "make"), BODIES.values(), ids=BODIES)
def test_the_largest_body_is_answered_and_the_kubelet_meanwhile(server, path, make):
    body, rows = make()
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
        answer = httpx.post(server.url + path, content=body, headers={"content-type": media}, timeout=PATIENCE)
    finally:
        done.set()
        thread.join()
    assert answer.status_code == 200, answer.text[:500]
    assert answer.content.count(b"2.0") == rows
    assert memory(server, "VmHWM") - before < GROWTH * LARGEST
    assert statistics.median(waits) < USUAL
    assert max(waits) < PROBE
