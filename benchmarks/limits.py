"""`python -m benchmarks.limits`: the cost of the largest accepted bodies for the server and its other clients.

For each body, it prints the slowest answer of `/livez` during the request, the growth of the server's memory, without
and with its decoder processes, and the seconds until the answer. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.serving.processes import list_process_tree

LARGEST = 16_000_000
APP = """
import json
from pathlib import Path

import numpy as np
import pandas as pd

from mlapp import App

app = App("{name}", target="y")


class Model:
    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return np.asarray(features, dtype=float).sum(axis=1)


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({table}).assign(y=lambda table: range(len(table)))


app.model(Model)


@app.saver
def save(model, path: Path) -> None:
    (path / "model.json").write_text("{{}}")


@app.loader
def load(path: Path) -> Model:
    return Model()


{predictor}
"""
NUMBERS = APP.format(name="numbers", table='{"a": np.arange(50.0), "b": 0.5}', predictor="")
TEXTS = APP.format(
    name="texts",
    table='{"a": [f"t{at}" for at in range(50)], "b": [f"u{at}" for at in range(50)]}',
    predictor="@app.predictor\ndef predict(model, features: pd.DataFrame) -> list[float]:\n"
    "    return [1.0] * len(features)",
)
RAW = APP.format(
    name="raw",
    table='{"a": np.arange(50.0), "b": 0.5}',
    predictor="@app.feature_loader\ndef load_features(raw) -> pd.DataFrame:\n"
    '    return pd.DataFrame({"a": [1.0], "b": [1.0]})',
)
ASYNC = APP.format(
    name="async",
    table='{"a": np.arange(50.0), "b": 0.5}',
    predictor="@app.predictor\nasync def predict(model, features: pd.DataFrame) -> list[float]:\n"
    "    return model.predict(features).tolist()",
)
APPS = {"numbers": NUMBERS, "texts": TEXTS, "raw": RAW, "async": ASYNC}
INFER = "/v2/models/{app}/infer"
JSON, CSV, NPY, ARROW = "application/json", "text/csv", "application/x-npy", "application/vnd.apache.arrow.stream"
Body = tuple[str, str, str, Callable[[], bytes]]


def repeat_item(head: str, item: str, tail: str, between: str = ",") -> bytes:
    """A body of maximum size, which repeats an item."""
    count = (LARGEST - len(head) - len(tail)) // len(item + between)
    return (head + between.join([item] * count) + tail).encode()


def make_columns_body(item: str) -> bytes:
    values = ",".join([item] * (LARGEST // (len(item) + 1) // 2 - 20))
    return f'{{"inputs":{{"a":[{values}],"b":[{values}]}}}}'.encode()


def make_tensors_body(item: str, datatype: str, *, is_nested: bool = False) -> bytes:
    count = (LARGEST // (len(item) + 1) - 200) // 4
    values = ",".join([f"[{item}]" if is_nested else item] * (count if not is_nested else count // 2))
    rows = values.count(item)
    one = {"datatype": datatype, "shape": [rows, 1] if is_nested else [rows]}
    a, b = (json.dumps({"name": name, **one})[:-1] + f',"data":[{values}]}}' for name in "ab")
    return f'{{"inputs":[{a},{b}]}}'.encode()


def make_npy_body() -> bytes:
    import numpy as np

    sink = io.BytesIO()
    np.save(sink, np.ones((LARGEST // 16 - 100, 2)))
    return sink.getvalue()


def arrow(kind: str) -> bytes:
    import pyarrow as pa

    rows = LARGEST // 40
    if kind == "floats":
        column = pa.array([1.5] * (LARGEST // 16 - 1000))
    elif kind == "texts":
        column = pa.array([f"t{at:08}" for at in range(LARGEST // 30)])
    else:
        column = pa.array([f"t{at % 1000}" for at in range(rows)]).dictionary_encode()
    table = pa.table({"a": column, "b": column})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


BODIES: dict[str, Body] = {
    "JSON rows": ("numbers", "/predict", JSON, lambda: repeat_item('{"inputs":[', "[1,1]", "]}")),
    "JSON long rows": (
        "numbers",
        "/predict",
        JSON,
        lambda: repeat_item('{"inputs":[', "[0.123456789,0.123456789]", "]}"),
    ),
    "JSON records": ("numbers", "/predict", JSON, lambda: repeat_item('{"inputs":[', '{"a":1,"b":1}', "]}")),
    "JSON long records": (
        "numbers",
        "/predict",
        JSON,
        lambda: repeat_item('{"inputs":[', '{"a":0.1234567890123,"b":0.1234567890123}', "]}"),
    ),
    "JSON most records": ("numbers", "/predict", JSON, lambda: b"[" + b",".join([b'{"":1}'] * 660_000) + b"]"),
    "JSON columns": ("numbers", "/predict", JSON, lambda: make_columns_body("1")),
    "JSON split": (
        "numbers",
        "/invocations",
        JSON,
        lambda: repeat_item('{"dataframe_split":{"columns":["b","a"],"data":[', "[1,1]", "]}}"),
    ),
    "JSON instances": ("numbers", "/invocations", JSON, lambda: repeat_item('{"instances":[', "[1,1]", "]}")),
    "JSON text rows": ("texts", "/predict", JSON, lambda: repeat_item('{"inputs":[', '["t1","u2"]', "]}")),
    "JSON text columns": ("texts", "/predict", JSON, lambda: make_columns_body('"t1"')),
    "JSON one text": ("texts", "/predict", JSON, lambda: repeat_item('{"inputs":[["', "x", '","y"]]}', "")),
    "JSON one escaped text": (
        "texts",
        "/predict",
        JSON,
        lambda: repeat_item('{"inputs":[["', "\\u00e9", '","y"]]}', ""),
    ),
    "JSON one text as inputs": ("numbers", "/predict", JSON, lambda: repeat_item('{"inputs":"', "x", '"}', "")),
    "JSON empty lists": ("numbers", "/predict", JSON, lambda: repeat_item("[", "[]", "]")),
    "JSON empty records": ("numbers", "/predict", JSON, lambda: repeat_item("[", "{}", "]")),
    "JSON one row": ("numbers", "/predict", JSON, lambda: repeat_item('{"inputs":[[', "1", "]]}")),
    "JSON spaces": ("numbers", "/predict", JSON, lambda: repeat_item("[", " ", "[1,1]]", "")),
    "JSON spaces between": ("numbers", "/predict", JSON, lambda: repeat_item("[", " [1,1] ", "]")),
    "JSON digits": ("numbers", "/predict", JSON, lambda: repeat_item("[[", "1", ",1]]", "")),
    "JSON wrong at the end": ("numbers", "/predict", JSON, lambda: repeat_item('{"inputs":[', "[1,1]", ',["x",1]]}')),
    "CSV": ("numbers", "/predict", CSV, lambda: repeat_item("a,b\n", "1,1", "\n", "\n")),
    "CSV long numbers": (
        "numbers",
        "/predict",
        CSV,
        lambda: repeat_item("a,b\n", "0.123456789,0.123456789", "\n", "\n"),
    ),
    "CSV quoted": ("numbers", "/predict", CSV, lambda: repeat_item("a,b\n", '"1","1"', "\n", "\n")),
    "CSV texts": ("texts", "/predict", CSV, lambda: repeat_item("a,b\n", "t1,u2", "\n", "\n")),
    "CSV quoted texts": ("texts", "/predict", CSV, lambda: repeat_item("a,b\n", '"t,""1","u2"', "\n", "\n")),
    "CSV one text": ("texts", "/predict", CSV, lambda: repeat_item('a,b\n"', "x", '",y\n', "")),
    "CSV one line": ("numbers", "/predict", CSV, lambda: repeat_item("a,b\n", "1", "\n")),
    "CSV blank lines": ("numbers", "/predict", CSV, lambda: repeat_item("a,b\n1,1", "\n", "", "")),
    "npy": ("numbers", "/predict", NPY, make_npy_body),
    "Arrow floats": ("numbers", "/predict", ARROW, lambda: arrow("floats")),
    "Arrow texts": ("texts", "/predict", ARROW, lambda: arrow("texts")),
    "Arrow codes": ("texts", "/predict", ARROW, lambda: arrow("codes")),
    "v2 numbers": ("numbers", INFER, JSON, lambda: make_tensors_body("1", "FP64")),
    "v2 nested": ("numbers", INFER, JSON, lambda: make_tensors_body("1", "FP64", is_nested=True)),
    "v2 texts": ("texts", INFER, JSON, lambda: make_tensors_body('"t1"', "BYTES")),
    "v2 one text": (
        "texts",
        INFER,
        JSON,
        lambda: repeat_item('{"inputs":[{"name":"a","datatype":"BYTES","shape":[1],"data":["', "x", '"]}]}', ""),
    ),
}


def post_body(address: tuple[str, int], path: str, media: str, body: bytes, headers: str = "") -> tuple[int, int]:
    """Send a body; returns the status and the size of the response."""
    with socket.create_connection(address, timeout=120) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        with contextlib.suppress(ConnectionError):
            client.sendall((head + headers + "Connection: close\r\n\r\n").encode())
            client.sendall(body)
        first, size = b"", 0
        while part := client.recv(1 << 20):
            size += len(part)
            first = first or part
        return int(first.split(b" ", 2)[1]), size


def measure_livez(address: tuple[str, int], done: threading.Event) -> list[float]:
    """The seconds of each request to `/livez` on one connection, until `done`."""
    waits = []
    with socket.create_connection(address, timeout=120) as client:
        while not done.is_set():
            started = time.perf_counter()
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"ok"}'):
                answer += client.recv(4096)
            waits.append(time.perf_counter() - started)
            time.sleep(0.01)
    return waits


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    with contextlib.suppress(OSError, TypeError):
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    return 0


def watch_memory(root: int, done: threading.Event, peak: list[int]) -> None:
    """Record the peak memory of the server, and of the server with its decoder processes, in `peak`."""
    while not done.wait(0.02):
        sizes = [memory(pid) for pid in list_process_tree(root)]
        peak[:] = max(peak[0], sizes[0]), max(peak[1], sum(sizes))


@contextlib.contextmanager
def start_server(project: Path) -> Iterator[tuple[int, tuple[str, int]]]:
    log = project / "server.log"
    program = str(Path(sys.executable).with_name("mlapp"))
    with log.open("w") as output:
        server = subprocess.Popen([program, "serve", "--port", "0"], cwd=project, stdout=output, stderr=output)
    try:
        while not (match := re.search(r"answers at http://([^:/]+):(\d+)", log.read_text())):
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield server.pid, (match[1], int(match[2]))
    finally:
        server.terminate()
        server.wait(60)


def measure(project: Path, path: str, media: str, body: bytes, headers: str = "") -> dict[str, float]:
    with start_server(project) as (pid, address):
        post_body(address, "/predict", JSON, b"[[1,1]]")
        before = memory(pid)
        done, waits, peak = threading.Event(), [], [0, 0]
        threads = [
            threading.Thread(target=lambda: waits.extend(measure_livez(address, done))),
            threading.Thread(target=watch_memory, args=(pid, done, peak)),
        ]
        for thread in threads:
            thread.start()
        started = time.perf_counter()
        status, _ = post_body(address, path, media, body, headers)
        seconds = time.perf_counter() - started
        done.set()
        for thread in threads:
            thread.join()
    waits.sort()
    return {
        "status": status,
        "livez": 1000 * waits[-1],
        "p99": 1000 * waits[int(len(waits) * 0.99) - 1],
        "growth": (peak[0] - before) / 1e6,
        "all": (peak[1] - before) / 1e6,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="a part of the bodies' names")
    parser.add_argument("--app", choices=APPS, help="the app that gets every body, instead of the one it fits")
    parser.add_argument("--gzip", action="store_true", help="send the bodies packed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        projects = {}
        for name, text in APPS.items():
            projects[name] = Path(folder) / name
            projects[name].mkdir()
            (projects[name] / "app.py").write_text(text)
            program = str(Path(sys.executable).with_name("mlapp"))
            subprocess.run([program, "train"], cwd=projects[name], check=True, capture_output=True)
        print("| body | status | /livez max, ms | p99, ms | growth, MB | with decoders | seconds |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for name, (app, path, media, make_body) in BODIES.items():
            if arguments.only and arguments.only.lower() not in name.lower():
                continue
            app = arguments.app or app
            body = make_body()
            headers = "Content-Encoding: gzip\r\n" if arguments.gzip else ""
            content = gzip.compress(body, 1) if arguments.gzip else body
            result = measure(projects[app], path.format(app=app), media, content, headers)
            print(
                f"| {name} | {result['status']} | {result['livez']:.0f} | {result['p99']:.0f} "
                f"| {result['growth']:.0f} | {result['all']:.0f} | {result['seconds']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
