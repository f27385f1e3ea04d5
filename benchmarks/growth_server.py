"""How the costs of a store grow with versions, and those of a server with models and connections.

    python -m benchmarks.growth_server [versions] [bucket] [models] [connections]

Times are CPU seconds of this process (versions) or of the server (models, connections). Memory is the server's PSS. The
bucket is a SeaweedFS, for which wall-clock times are also printed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.processes import ENVIRON, mlapp

VERSIONS = (10, 100, 1_000, 10_000)
MODELS = (1, 10, 50)
CONNECTIONS = (1, 100, 1_000, 10_000)
REQUESTS = 1_000
APP = """
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlapp import App

app = App("NAME", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"a": range(100), "b": [1.0, 2.0] * 50, "y": range(100)})


app.model(LinearRegression)
"""
TRAIN = "from app import app; app.train(); app.save()"


def main() -> None:
    """Print the tables of the chosen axes."""
    axes: dict[str, Callable[[], None]] = {
        "versions": lambda: print_versions("folder"),
        "bucket": lambda: print_versions("bucket"),
        "models": print_models,
        "connections": print_connections,
    }
    for name in sys.argv[1:] or axes:
        axes[name]()


def print_versions(place: str) -> None:
    """Time of the store's operations by its number of versions."""
    print(
        f"\n| versions in a {place} | list the newest 50 | find the latest | store and delete one | wall-clock time |"
    )
    print("|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary, _open_bucket(place) as url:
        folder = Path(temporary)
        train_app(folder, "growth")
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        from mlapp.project import Project
        from mlapp.store import open_store

        local = Project.find().store
        store = local if url is None else open_store(url, folder / "copies")
        version = local.get("growth")
        trained = Project.find().app.train()
        if url is not None:
            store.import_version(version)
        count = 1
        for size in VERSIONS:
            _add_versions(store, count, size)
            count = size
            costs = [
                _measure_call(lambda: store.versions("growth", newest=50)),
                _measure_call(lambda: store.manifest("growth", store.resolve("growth"))),
                _measure_call(lambda: store.delete("growth", store.put(trained).version), repeats=3),
            ]
            count += 3  # numbers are not used twice
            walls = " / ".join(f"{1000 * wall:.1f}" for _, wall in costs)
            print(f"| {size:,} | " + " | ".join(f"{1000 * cpu:.1f}" for cpu, _ in costs) + f" | {walls} |", flush=True)


def _add_versions(store: Any, count: int, size: int) -> None:
    """Copy the manifest of the first version to further numbers, which share its files."""
    content = store.storage.read_key("growth/versions/000001.json")
    manifest = json.loads(content)

    def add(number: int) -> None:
        body = json.dumps({**manifest, "version": number}).encode()
        store.storage.create_key(f"growth/versions/{number:06}.json", body)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(count + 1, size + 1)))


@contextlib.contextmanager
def _open_bucket(place: str) -> Iterator[str | None]:
    if place == "folder":
        yield None
        return
    from pyarrow import fs

    from tests import servers

    with servers.s3() as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        os.environ |= {**keys, "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
        host = endpoint.removeprefix("http://")
        fs.S3FileSystem(
            access_key="key", secret_key="secret", endpoint_override=host, scheme="http", allow_bucket_creation=True
        ).create_dir("models")
        yield "s3://models/store"


def _measure_call(call: Callable[[], object], repeats: int = 5) -> tuple[float, float]:
    """The minimum CPU seconds and the minimum wall-clock seconds of several calls."""
    costs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        costs.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(cpu for cpu, _ in costs), min(wall for _, wall in costs)


def print_models() -> None:
    """A server's start, memory and time per request by its number of models."""
    print("\n| models in a server | CPU until ready, s | PSS, MB | CPU of a request to the last, ms |")
    print("|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for at in range(max(MODELS)):
            project = folder / f"m{at}"
            project.mkdir()
            train_app(project, f"m{at}", first=folder / "m0")
        for size in MODELS:
            names = [f"m{at}/app.py" for at in range(size)]
            with start_server(folder if size > 1 else folder / "m0", *(names if size > 1 else ())) as (process, url):
                ready = read_cpu_seconds(process.pid)
                path = f"/m{size - 1}/predict" if size > 1 else "/predict"
                cost = measure_request_cost(process.pid, url, path)
                print(f"| {size} | {ready:.1f} | {read_pss(process.pid):.0f} | {1000 * cost:.2f} |", flush=True)


def print_connections() -> None:
    """A server's memory and time per request by its number of open connections."""
    print("\n| open connections | PSS, MB | CPU of a request on one of them, ms |\n|--:|--:|--:|")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as temporary:
        train_app(Path(temporary), "growth")
        with start_server(Path(temporary)) as (process, url):
            address = url.removeprefix("http://")
            measure_request_cost(process.pid, url, "/predict")  # warm
            opened: list[socket.socket] = []
            for size in CONNECTIONS:
                while len(opened) < size - 1:
                    host, port = address.split(":")
                    opened.append(socket.create_connection((host, int(port))))
                    if len(opened) % 100 == 0:
                        time.sleep(0.05)  # the server accepts them in turn
                cost = measure_request_cost(process.pid, url, "/predict")
                print(f"| {size:,} | {read_pss(process.pid):.0f} | {1000 * cost:.2f} |", flush=True)
            for each in opened:
                each.close()


def train_app(folder: Path, name: str, first: Path | None = None) -> None:
    """Create a project with one version, by training it or by copying the project `first` under another name."""
    (folder / "app.py").write_text(APP.replace("NAME", name))
    (folder / "mlapp.yaml").write_text("app: app.py\n")
    if first is None or first == folder:
        subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, env=ENVIRON, check=True)
        return
    store, copy = first / ".mlapp/store", folder / ".mlapp/store"
    for file in (each for each in store.rglob("*") if each.is_file()):
        place = copy / str(file.relative_to(store)).replace(first.name, name, 1)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        is_manifest = "versions" in file.parts
        place.write_bytes(json.dumps({**json.loads(content), "app": name}).encode() if is_manifest else content)


@contextlib.contextmanager
def start_server(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; yields its process and its URL when it is ready."""
    command = mlapp("serve", *arguments, "--port", "0")
    environment = {**ENVIRON, "MLAPP_SERVE__ACCESS_LOG": "false"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if match := re.search(r"http://[\w.]+:\d+", line):
                yield process, match[0]
                return
        raise RuntimeError("".join(lines)[-1000:])
    finally:
        process.terminate()
        process.wait()


def measure_request_cost(pid: int, url: str, path: str) -> float:
    """CPU seconds of the server for a request with one row."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    body = json.dumps({"inputs": [[1, 2.0]]})
    before = read_cpu_seconds(pid)
    for _ in range(REQUESTS):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
    connection.close()
    return (read_cpu_seconds(pid) - before) / REQUESTS


def read_cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_pss(pid: int) -> float:
    """The proportional set size of a process in MB."""
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


if __name__ == "__main__":
    main()
