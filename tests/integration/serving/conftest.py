"""A trained project, and `mlapp serve` as its operator runs it: a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG

from tests.preloaded import Fork, preload_commands
from tests.servers import free_port

Process = Fork | subprocess.Popen[bytes]

MLAPP = Path(sys.executable).with_name("mlapp")
APP = '''
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mlapp import App

app = App("sums", target="y")


class Sums:
    """The sum of each row, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return self.factor * np.asarray(features).sum(axis=1)


@app.data_reader
def read(rows: int = 50) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(rows, dtype=float), "b": 0.5}).assign(y=lambda table: table["a"] > 10)


app.model(Sums)


@app.saver
def save(model, path: Path) -> None:
    (path / "model.json").write_text(json.dumps({"factor": model.factor}))


@app.loader
def load(path: Path) -> Sums:
    return Sums(**json.loads((path / "model.json").read_text()))


@app.predictor
def predict(model: Sums, features: np.ndarray) -> list[float]:
    if (features == -1).any():
        raise RuntimeError("a secret of the code")
    if (features == -2).any():
        time.sleep(0.2)
    if (features == -273.25).any():
        Path("busy").touch()
        while not Path("free").exists():
            time.sleep(0.005)
    return model.predict(features).tolist()
'''

SLOW = {"inputs": [[-2, 2]]}
"""Takes 0.2 s: then the model is known to be slow."""
HELD = {"inputs": [[-273.25, 0]]}
"""Takes as long as the test wants."""
PATIENCE = 250.0
"""Seconds that a test waits for what must happen at once: the machine may be busy."""
for phase in ("connect", "read", "write", "pool"):  # httpx waits for 5 s unless it is told otherwise
    setattr(DEFAULT_TIMEOUT_CONFIG, phase, PATIENCE)


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@dataclass
class Server:
    """A running `mlapp serve`."""

    process: Process
    project: Path
    log: Path
    urls: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.urls[0]

    def text(self) -> str:
        return self.log.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value now, summed over the labels that are not given."""
        found = 0.0
        for line in httpx.get(f"{self.url}/metrics", timeout=PATIENCE).text.splitlines():
            if re.match(rf"{name}[{{ ]", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
                found += float(line.rpartition(" ")[2])
        return found

    def until_waiting(self, requests: int) -> None:
        """Wait until so many requests are in the model's queue."""
        until(lambda: self.metric("mlapp_queue_depth") == requests)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Within it the model is in the middle of a call, in its thread: other requests wait."""
        busy, free = self.project / "busy", self.project / "free"
        assert httpx.post(f"{self.url}/predict", json=SLOW, timeout=PATIENCE).status_code == 200
        with ThreadPoolExecutor(1) as thread:
            held = thread.submit(httpx.post, f"{self.url}/predict", json=HELD, timeout=PATIENCE)
            try:
                until(busy.exists)
                yield
            finally:
                free.touch()
            assert held.result().json()["predictions"] == [HELD["inputs"][0][0]]
        busy.unlink()
        free.unlink()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def start_program(command: Sequence[str], cwd: Path, environ: Mapping[str, str], log: IO[str]) -> Process:
    """The command as a shell starts it. A fork, the default, is the same without the seconds of its imports."""
    return subprocess.Popen([MLAPP, *command[1:]], cwd=cwd, env=environ, stdout=log, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def serving(
    project: Path, *arguments: str, start: Callable[..., Process] | None = None, **environ: str
) -> Iterator[Server]:
    """A server of a project.

    Args:
        start: `start_program` where the start or the memory is tested.
    """
    log = project.parent / f"{project.name}-{time.monotonic_ns()}.log"
    start = start or preload_commands().start
    with log.open("w") as output:
        process = start(["mlapp", "serve", "--port", "0", *arguments], project, {**os.environ, **environ}, output)
    server = Server(process, project, log)
    try:
        until(lambda: bool(re.search(r"answers at http\S+\n", server.text())) or process.poll() is not None)
        server.urls = re.findall(r"answers at (https?://\S+?)/?\n", server.text())
        assert server.urls, server.text()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE)


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return preload_commands().run(["mlapp", *arguments], project, os.environ)


@pytest.fixture(scope="session")
def new_project(tmp_path_factory) -> Callable[[], Path]:
    """A project with version 1, each time another."""
    trained = tmp_path_factory.mktemp("trained")
    (trained / "app.py").write_text(APP)
    done = run(trained, "train")
    assert done.returncode == 0, done.stderr

    def make() -> Path:
        import shutil

        copy = tmp_path_factory.mktemp("project")
        shutil.copytree(trained, copy, dirs_exist_ok=True)
        return copy

    return make


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    return serving


@pytest.fixture(scope="session")
def mlapp() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run


@pytest.fixture(scope="session")
def server(new_project) -> Iterator[Server]:
    """One server that the tests of the session share; it speaks gRPC too."""
    port = free_port()
    with serving(new_project(), "--grpc-port", str(port)) as server:
        server.urls.append(f"127.0.0.1:{port}")
        yield server


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client
